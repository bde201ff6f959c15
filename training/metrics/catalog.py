"""All metrics that a run logs, with an explanation of each for its page. docs/training.md has the same names."""

from __future__ import annotations

from nextscene.training.metrics.log_file import SIGMA_BUCKETS, heldout_name, sigma_bucket_name

HELDOUT_SIGMAS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Noise levels at which the held-out loss is also given by itself."""


def _range_of(bucket: int) -> str:
    return f"{bucket / SIGMA_BUCKETS:.2f} to {(bucket + 1) / SIGMA_BUCKETS:.2f}"


STEP_METRICS: dict[str, str] = {
    "loss": "Mean squared error of the predicted velocity over the global batch. In the stage rl it is the policy's"
    " objective, which is 0 on average and says nothing about progress.",
    **{
        sigma_bucket_name(bucket): f"The loss of the samples whose noise level σ is {_range_of(bucket)}: 0 is the clean"
        " clip, 1 is noise alone."
        for bucket in range(SIGMA_BUCKETS)
    },
    "gradient_norm": "Norm of the gradient before clipping.",
    "lr": "Learning rate; with Prodigy a factor of its own estimate.",
    "d": "Prodigy's estimate of the step size, which grows from 1e-6 until it fits.",
    "seconds": "Duration of the step.",
    "samples_per_second": "Clips or candidates per second, all ranks together.",
    "tokens_per_second": "Latent tokens per second, all ranks together.",
    "straggling": "FLOPs of the slowest rank of each turn over the mean of the ranks: 1 if no rank waits for another.",
    "texts_cut": "Texts of the step that were longer than model.max_tokens allows, and lost their ends.",
    "data_wait": "Share of the step that the first rank spent waiting for data.",
    "peak_memory_gb": "Most memory that the first rank has used so far: of the GPU, or on the CPU of the process.",
    "tflops_transformer": "TFLOP of the step in the transformer, all ranks together.",
    "tflops_language": "TFLOP of the step in the language model, all ranks together.",
    "tflops_connector": "TFLOP of the step in the connector, all ranks together.",
    "tflops_vae": "TFLOP of the step in the autoencoder, all ranks together.",
    "mfu": "Share of the peak FLOPs of all GPUs; on A100, H100 and H200 in bfloat16.",
    "reward_mean": "Mean reward of the candidates with a verdict.",
    "reward_deviation": "Standard deviation of the rewards within a group, mean over the groups.",
    "groups_without_spread": "Share of groups whose rewards are all equal: they teach nothing.",
    "missing_judgements": "Share of candidates without a verdict.",
    "extra_scenes": "Scenes drawn beyond the global batch, to find groups with spread.",
    "usd": "US dollars for the captions and verdicts of the step.",
    "ratio_off": "How far the ratio of a probability in learning and in sampling is off 1 at most.",
    "clip_share": "Share of these ratios that are off by more than policy.clip_range.",
    "kl_to_start": "KL divergence from the weights that the stage began with.",
}

EVALUATION_METRICS: dict[str, str] = {
    "heldout_loss": "Loss of the averaged weights on held-out clips, at fixed noise: the number to compare runs by.",
    "heldout_loss_unaveraged": "The same of the weights as they are; without an average it is the same number.",
    "heldout_loss_low_sigma": "The held-out loss at σ = 0.1, the level of the last sampling step.",
    **{heldout_name(sigma): f"The held-out loss at the noise level σ = {sigma:g}." for sigma in HELDOUT_SIGMAS},
    "zero_loss": "Held-out loss of predicting a velocity of zero: a model above it has learned nothing.",
}
