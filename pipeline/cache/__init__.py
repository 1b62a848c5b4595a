"""The content-addressed cache of stage results. It does not depend on the stages."""
