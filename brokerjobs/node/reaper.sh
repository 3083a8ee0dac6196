#!/bin/sh
# reaper.sh [FOLDER]: reads "+ PID" and "- PID" lines; at their end kills the processes that were
# entered and not crossed out, and removes the folder.
pids=
while read -r sign pid; do
    case $sign in
        +) pids="$pids $pid" ;;
        -) kept=
           for other in $pids; do [ "$other" = "$pid" ] || kept="$kept $other"; done
           pids=$kept ;;
    esac
done
[ -z "$pids" ] || kill -9 $pids
[ -n "$1" ] && [ -e "$1" ] || exit 0
[ -z "$pids" ] || sleep 1  # they may be writing their last files
rm -rf "$1"
