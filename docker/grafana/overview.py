"""The dashboard, as code: `make dashboard` writes what this prints to dashboards/brokerjobs-overview.json.

Queues are asked for through the recording rules (../prometheus/rules), so that brokers without the plugin show too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from grafana_foundation_sdk.builders import bargauge, heatmap
from grafana_foundation_sdk.builders import common as parts
from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    Row,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard, units
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from panels import (
    GREEN,
    ORANGE,
    RATE,
    RED,
    SOURCE,
    AnyPanel,
    choice,
    described,
    figure,
    lines,
    quantile,
    query,
    rows,
    steps,
)

QUEUE = 'queue=~"$queue"'
JOB = f'{QUEUE},job_name=~"$job_name"'
DELAY_LEVELS = 'queue=~"([a-z0-9_-]+[.])?jobs[.]v1[.]delay[.].+"'
UNROUTED = 'queue=~"([a-z0-9_-]+[.])?jobs[.]unrouted"'
ALWAYS = "no worker is seen"
PLUGIN = "RabbitMQ's plugin rabbitmq_prometheus is not scraped"


def overview() -> dashboard.Dashboard:
    """All of it."""
    board = (
        Dashboard("brokerjobs")
        .uid("brokerjobs-overview")
        .description("Background jobs on RabbitMQ: queues, latency, failures, workers.")
        .tags(["brokerjobs", "rabbitmq"])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(choice("queue", "Queue", "label_values(brokerjobs:queue_ready, queue)"))
        .with_variable(
            choice("job_name", "Job", f"label_values(brokerjobs_jobs_finished_total{{{QUEUE}}}, job_name)")
        )
        .annotation(
            AnnotationQuery()
            .name("New versions")
            .datasource(SOURCE)
            .enable(True)
            .icon_color("blue")
            .expr(
                "count by (version) (brokerjobs_worker_info)"
                " unless count by (version) (brokerjobs_worker_info offset 2m)"
            )
        )
        .link(
            DashboardLink("RabbitMQ-Overview")
            .type(dashboard.DashboardLinkType.LINK)
            .url("https://grafana.com/grafana/dashboards/10991")
            .tooltip("RabbitMQ's own dashboard, to import")
            .target_blank(True)
        )
    )
    for title, panels in (
        ("Now", now()),
        ("Queues", queues()),
        ("Latency", latency()),
        ("Failures", failures()),
        ("Workers", workers()),
        ("RabbitMQ", rabbitmq()),
    ):
        board.with_row(Row(title))
        for panel in panels:
            board.with_panel(panel)
    return _numbered(board.build())


def now() -> Iterator[AnyPanel]:
    yield figure(
        "Ready",
        "Jobs that are due and wait for a free slot. Retries and delayed jobs are not due yet.",
        units.Short,
        f"sum(brokerjobs:queue_ready{{{QUEUE}}})",
        "no queue is seen",
    )
    yield figure(
        "Running",
        "Jobs that run now, in all workers.",
        units.Short,
        f"sum(brokerjobs_jobs_in_progress{{{QUEUE}}})",
        ALWAYS,
    )
    yield figure(
        "Dead letters",
        "Jobs whose attempts are spent, or that could not run. They wait for a person: brokerjobs dead list QUEUE.",
        units.Short,
        f"sum(brokerjobs:queue_dead{{{QUEUE}}})",
        "no queue is seen",
        ((None, GREEN), (1, RED)),
    )
    yield figure(
        "Time to drain",
        "How long the slowest queue would take for what is ready, at its present pace. Infinite: nobody works on it.",
        units.Seconds,
        f"max(brokerjobs:seconds_to_drain{{{QUEUE}}})",
        "no queue is seen",
        ((None, GREEN), (300, ORANGE), (900, RED)),
    )
    yield figure(
        "Oldest waiting",
        "For how long the oldest ready job may have been due. One of a lower priority than those that start now, or "
        "one that was given back, may be older.",
        units.Seconds,
        f"max(min by (queue) (brokerjobs_queue_oldest_age_seconds{{{QUEUE}}}))",
        ALWAYS,
        ((None, GREEN), (30, ORANGE), (900, RED)),
    )
    yield figure(
        "Succeeded, 1 h",
        "Of the jobs that came to an end within the hour, how many succeeded; the others died.",
        units.PercentUnit,
        f'sum(rate(brokerjobs_jobs_finished_total{{{JOB},outcome="succeeded"}}[1h]))'
        f' / sum(rate(brokerjobs_jobs_finished_total{{{JOB},outcome=~"succeeded|dead"}}[1h]))',
        "no job ended",
        ((None, RED), (0.95, ORANGE), (0.99, GREEN)),
    )
    yield figure(
        "Workers",
        "Targets that answer; a parent with several processes is one.",
        units.Short,
        "count(brokerjobs_worker_info)",
        "none",
    )
    yield figure(
        "Slots in use",
        "Running jobs of all that could run at once; near 100 % jobs begin to wait. Too low for queues that share "
        "their slots (--strict).",
        units.PercentUnit,
        f"sum(brokerjobs_jobs_in_progress{{{QUEUE}}}) / sum(brokerjobs_worker_slots{{{QUEUE}}})",
        ALWAYS,
        ((None, GREEN), (0.8, ORANGE), (0.95, RED)),
    )


def queues() -> Iterator[AnyPanel]:
    yield lines(
        "Ready by queue",
        "Jobs that are due and wait for a free slot.",
        units.Short,
        "no queue is seen",
        (f"sum by (queue) (brokerjobs:queue_ready{{{QUEUE}}})", "{{queue}}"),
    )
    yield lines(
        "Arrivals against service",
        "Attempts that become due and attempts that end, a second, over 5 minutes. Arrivals above: it grows.",
        units.CountsPerSecond,
        ALWAYS,
        (f"brokerjobs:arrival_rate:5m{{{QUEUE}}}", "{{queue}} come"),
        (f"brokerjobs:service_rate:5m{{{QUEUE}}}", "{{queue}} done"),
    )
    yield lines(
        "Time to drain by queue",
        "How long what is ready would take at the present pace if nothing came any more.",
        units.Seconds,
        "no queue is seen",
        (f"brokerjobs:seconds_to_drain{{{QUEUE}}}", "{{queue}}"),
    )
    yield lines(
        "Oldest waiting by queue",
        "For how long the oldest ready job may have been due; 0 when none is ready. One of a lower priority than "
        "those that start now, or one that was given back, may be older.",
        units.Seconds,
        ALWAYS,
        (f"min by (queue) (brokerjobs_queue_oldest_age_seconds{{{QUEUE}}})", "{{queue}}"),
    )
    yield lines(
        "Slots needed",
        "How many jobs must run at once to keep up and to be done within a minute with what is ready, beside "
        "the slots there are. The autoscaling signal.",
        units.Short,
        "no job has run within the hour",
        (f"brokerjobs:slots_needed{{{QUEUE}}}", "{{queue}} needs"),
        (f"sum by (queue) (brokerjobs_worker_slots{{{QUEUE}}})", "{{queue}} has"),
    )
    yield lines(
        "Consumers",
        "Worker processes that consume each queue, as RabbitMQ counts them.",
        units.Short,
        "no queue is seen",
        (f"sum by (queue) (brokerjobs:queue_consumers{{{QUEUE}}})", "{{queue}}"),
    )
    yield lines(
        "Waiting",
        "Retries and delayed jobs of all queues, until they are due.",
        units.Short,
        PLUGIN,
        (f"sum by (vhost) (rabbitmq_detailed_queue_messages{{{DELAY_LEVELS}}})", "{{vhost}}"),
    )
    yield lines(
        "Dead letters by queue",
        "They wait for a person: brokerjobs dead list QUEUE --group.",
        units.Short,
        "no queue is seen",
        (f"sum by (queue) (brokerjobs:queue_dead{{{QUEUE}}})", "{{queue}}"),
    )
    yield lines(
        "Paused",
        "1 while a worker takes nothing from the queue on purpose: an operator's pause, or a circuit breaker.",
        units.Short,
        ALWAYS,
        (f"max by (queue) (brokerjobs_queue_paused{{{QUEUE}}})", "{{queue}} paused"),
        (f"max by (queue) (brokerjobs_breaker_open{{{QUEUE}}})", "{{queue}} breaker"),
    )


def latency() -> Iterator[AnyPanel]:
    yield lines(
        "Wait before start",
        "From when a job was due to when it started.",
        units.Seconds,
        "no job has started",
        *(
            (
                quantile(q, f"brokerjobs_job_wait_seconds_bucket{{{QUEUE}}}", "queue"),
                f"{{{{queue}}}} p{name}",
            )
            for q, name in ((0.5, "50"), (0.95, "95"), (0.99, "99"))
        ),
    )
    yield lines(
        "Duration, p95 by job",
        "How long attempts ran, those that failed too: 95 of 100 took no longer.",
        units.Seconds,
        "no job has ended",
        (quantile(0.95, f"brokerjobs_job_duration_seconds_bucket{{{JOB}}}", "job_name"), "{{job_name}}"),
    )
    yield _late_starts()
    yield _durations()
    yield lines(
        "Confirm time",
        "From when a worker sent a message to when RabbitMQ confirmed it.",
        units.Seconds,
        "nothing has been published",
        *(
            (quantile(q, "brokerjobs_publish_duration_seconds_bucket"), f"p{name}")
            for q, name in ((0.5, "50"), (0.95, "95"), (0.99, "99"))
        ),
    )
    yield lines(
        "Duration, mean by job",
        "With arrivals it says how many slots a queue needs: a job of 2 s that comes 3 times a second keeps 6 busy.",
        units.Seconds,
        "no job has ended",
        (
            f"sum by (job_name) (rate(brokerjobs_job_duration_seconds_sum{{{JOB}}}{RATE}))"
            f" / sum by (job_name) (rate(brokerjobs_job_duration_seconds_count{{{JOB}}}{RATE}))",
            "{{job_name}}",
        ),
    )


def failures() -> Iterator[AnyPanel]:
    yield lines(
        "Attempts by outcome",
        "Attempts that ended, a second. retried: another follows. released: given back, mostly when a worker stops.",
        units.CountsPerSecond,
        ALWAYS,
        (f"sum by (outcome) (rate(brokerjobs_jobs_finished_total{{{JOB}}}{RATE}))", "{{outcome}}"),
        stacked=True,
    )
    yield lines(
        "Retried",
        "How many of all attempts fail and are tried again.",
        units.PercentUnit,
        "no job has ended",
        (
            f'sum by (queue) (rate(brokerjobs_jobs_finished_total{{{JOB},outcome="retried"}}{RATE}))'
            f" / sum by (queue) (rate(brokerjobs_jobs_finished_total{{{JOB}}}{RATE}))",
            "{{queue}}",
        ),
    )
    yield _attempts()
    yield rows(
        "Failing jobs",
        "Attempts that were retried or died in the time shown, of the ten jobs that have most.",
        "nothing has failed",
        f'topk(10, sum by (queue, job_name) (increase(brokerjobs_jobs_finished_total{{{JOB},outcome=~"retried|dead"}}'
        "[$__range])) > 0)",
    )
    yield rows(
        "Exceptions",
        "What attempts failed with in the time shown, the ten most frequent.",
        "nothing has failed",
        f"topk(10, sum by (exception, job_name) ({_grown(f'brokerjobs_job_failures_total{{{JOB}}}')}) > 0)",
    )
    yield lines(
        "Replayed",
        "Dead letters that an operator sent back and that came to a worker, in each interval.",
        units.Short,
        ALWAYS,
        (f"sum by (queue) (increase(brokerjobs_jobs_replayed_total{{{QUEUE}}}{RATE}))", "{{queue}}"),
    )


def workers() -> Iterator[AnyPanel]:
    yield lines(
        "Running against slots",
        "Jobs that run, and how many could run at once.",
        units.Short,
        ALWAYS,
        (f"sum by (queue) (brokerjobs_jobs_in_progress{{{QUEUE}}})", "{{queue}} running"),
        (f"sum by (queue) (brokerjobs_worker_slots{{{QUEUE}}})", "{{queue}} slots"),
    )
    yield lines(
        "Event loop lag",
        "How late the loop of the slowest process comes. Above a second an async job blocks it, or CPU is short.",
        units.Seconds,
        ALWAYS,
        ("max by (instance) (brokerjobs_event_loop_lag_seconds)", "{{instance}}"),
    )
    yield lines(
        "Longest running job",
        "For how long the oldest of the running jobs has been running; 0 when none does.",
        units.Seconds,
        ALWAYS,
        (
            f"max by (queue) ((time() - brokerjobs_jobs_oldest_start_timestamp_seconds{{{QUEUE}}})"
            f" * (brokerjobs_jobs_oldest_start_timestamp_seconds{{{QUEUE}}} > bool 0))",
            "{{queue}}",
        ),
    )
    yield lines(
        "Connection",
        "1 while all workers are connected, by role; and how many times they connected again in each interval.",
        units.Short,
        ALWAYS,
        ("min by (role) (brokerjobs_broker_connected)", "{{role}} connected"),
        (f"sum by (role) (increase(brokerjobs_broker_reconnects_total{RATE}))", "{{role}} reconnects"),
    )
    yield lines(
        "Blocked",
        "The share of time in which RabbitMQ took no messages, because of its memory or disk alarm.",
        units.PercentUnit,
        ALWAYS,
        (f"max by (role) (rate(brokerjobs_broker_blocked_seconds_total{RATE}))", "{{role}}"),
    )
    yield lines(
        "Published by outcome",
        "Messages that workers published, a second: retries, dead letters, and what jobs send.",
        units.CountsPerSecond,
        ALWAYS,
        (f"sum by (outcome) (rate(brokerjobs_jobs_published_total{RATE}))", "{{outcome}}"),
    )
    yield lines(
        "Jobs that run again",
        "In each interval: repeated deliveries, and acknowledgements that were lost with their connection.",
        units.Short,
        ALWAYS,
        (
            f"sum by (queue) (increase(brokerjobs_jobs_redelivered_total{{{QUEUE}}}{RATE}))",
            "{{queue}} redelivered",
        ),
        (
            f"sum by (queue) (increase(brokerjobs_settle_failures_total{{{QUEUE}}}{RATE}))",
            "{{queue}} settle failed",
        ),
        (
            f"sum by (queue, how) (increase(brokerjobs_jobs_recognised_total{{{QUEUE}}}{RATE}))",
            "{{queue}} {{how}}",
        ),
    )
    yield lines(
        "Processes and threads lost",
        "In each interval: children of isolated jobs that died, threads left behind, processes that were replaced.",
        units.Short,
        ALWAYS,
        (f"sum by (cause) (increase(brokerjobs_child_deaths_total{{{QUEUE}}}{RATE}))", "isolated: {{cause}}"),
        (f"sum(increase(brokerjobs_threads_abandoned_total{{{QUEUE}}}{RATE}))", "threads abandoned"),
        (f"sum by (reason) (increase(brokerjobs_process_restarts_total{RATE}))", "process: {{reason}}"),
    )
    yield rows(
        "Versions",
        "How many workers run which release.",
        "none",
        "count by (version, python) (brokerjobs_worker_info)",
    )


def rabbitmq() -> Iterator[AnyPanel]:
    yield lines(
        "Alarms",
        "1 while RabbitMQ takes no messages because memory or disk is short.",
        units.Short,
        PLUGIN,
        ("max(rabbitmq_alarms_memory_used_watermark)", "memory"),
        ("max(rabbitmq_alarms_free_disk_space_watermark)", "disk"),
    )
    yield lines(
        "Memory",
        "What each node uses of the memory at which it raises its alarm.",
        units.PercentUnit,
        PLUGIN,
        (
            "max by (instance) (rabbitmq_process_resident_memory_bytes)"
            " / max by (instance) (rabbitmq_resident_memory_limit_bytes)",
            "{{instance}}",
        ),
    )
    yield lines(
        "Held by workers",
        "Messages that are delivered and not acknowledged: those that run, and those prefetched.",
        units.Short,
        PLUGIN,
        ("sum(rabbitmq_queue_messages_unacked)", "unacked"),
    )
    yield lines(
        "Unrouted",
        "Messages whose key matches no queue: a misspelt name, or a consumer that was never started.",
        units.Short,
        PLUGIN,
        (f"max by (vhost, queue) (rabbitmq_detailed_queue_messages{{{UNROUTED}}})", "{{vhost}} {{queue}}"),
    )
    yield lines(
        "Connections and channels",
        "Of all clients. A steady rise is a publisher that opens a connection for each message.",
        units.Short,
        PLUGIN,
        ("sum(rabbitmq_connections)", "connections"),
        ("sum(rabbitmq_channels)", "channels"),
    )
    yield lines(
        "Disk",
        "Free space of each node, beside the limit at which it raises its alarm.",
        units.BytesIEC,
        PLUGIN,
        ("max by (instance) (rabbitmq_disk_space_available_bytes)", "{{instance}} free"),
        ("max by (instance) (rabbitmq_disk_space_available_limit_bytes)", "{{instance}} limit"),
    )


def _grown(counter: str) -> str:
    """Its increase in the time shown; `increase` alone does not see the 1 with which a new series begins."""
    increase = f"increase({counter}[$__range])"
    return f"{increase} + min_over_time({counter}[$__range]) unless {counter} offset $__range or {increase}"


def _late_starts() -> AnyPanel:
    panel = lines(
        "Late starts",
        "How many jobs start more than 30 s after they were due. Allowed is 1 % in the month (the line); the fast "
        "alert comes at 14.4 %, the slow one at 6 %.",
        units.PercentUnit,
        "no job has started",
        (f"brokerjobs:late_start_ratio:rate5m{{{QUEUE}}}", "{{queue}} 5 min"),
        (f"brokerjobs:late_start_ratio:rate1h{{{QUEUE}}}", "{{queue}} 1 h"),
    )
    return panel.thresholds(steps(((None, GREEN), (0.01, ORANGE), (0.144, RED)))).thresholds_style(
        parts.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.LINE)
    )


def _durations() -> AnyPanel:
    panel = heatmap.Panel().with_target(
        query(
            f"sum by (le) (increase(brokerjobs_job_duration_seconds_bucket{{{JOB}}}{RATE}))", "{{le}}"
        ).format(PromQueryFormat.HEATMAP)
    )
    return described(
        panel,
        "Durations",
        "How long attempts ran: the brighter, the more of them took that long.",
        units.Seconds,
        "no job has ended",
    )


def _attempts() -> AnyPanel:
    panel = (
        bargauge.Panel()
        .with_target(
            query(f"sum by (le) (increase(brokerjobs_job_attempts_bucket{{{QUEUE}}}[$__range]))", "{{le}}")
            .instant()
            .format(PromQueryFormat.HEATMAP)
        )
        .reduce_options(parts.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    return described(
        panel,
        "Attempts needed",
        "Jobs that succeeded or died in the time shown, by their attempts: that many, or more than the bar before.",
        units.Short,
        "no job came to an end",
    ).decimals(0)


def _numbered(board: dashboard.Dashboard) -> dashboard.Dashboard:
    """With ids by their places, so that links to panels stay."""
    for number, panel in enumerate(board.panels or [], start=1):
        panel.id_val = number
    return board


if __name__ == "__main__":
    print(json.dumps(overview(), cls=JSONEncoder, indent=2, sort_keys=True))
