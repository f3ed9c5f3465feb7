"""The five stages: plain functions (spec, inputs, context) -> StageResult. None of them can tell who called it."""
