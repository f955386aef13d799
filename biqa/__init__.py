"""biqa: two-stage tuning of vision-language models for blind image quality assessment, and the measures that tell whether it helped."""

__version__ = "0.1.0"
