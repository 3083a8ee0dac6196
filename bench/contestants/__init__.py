"""One file a contestant: `adapter.Adapter` filled in. A new file here takes part without another word."""
