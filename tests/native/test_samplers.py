"""Every sampler of llama.h changes an outcome, and seeds repeat it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from llamalite.config import SamplingConfig
from llamalite.core.batch import Batch
from llamalite.core.candidates import CANDIDATE
from llamalite.core.context import Context
from llamalite.core.model import Model
from llamalite.core.sampler import SamplerChain
from llamalite.core.sampling import build_chain
from llamalite.errors import InvalidParameter

LOGITS = [4.0, 3.5, 3.0, 1.0, 0.0, -1.0, -2.0, -3.0]


def candidates(logits: list[float] = LOGITS) -> np.ndarray:
    rows = np.zeros(len(logits), CANDIDATE)
    rows["id"] = np.arange(len(logits))
    rows["logit"] = logits
    return rows


def left_by(chain: SamplerChain, logits: list[float] = LOGITS) -> dict[int, float]:
    """Ids and logits that a chain without selector leaves, the forbidden ones left out."""
    with chain:
        _, rows = chain.apply(candidates(logits))
        return {int(row["id"]): float(row["logit"]) for row in rows if np.isfinite(row["logit"])}


def picks(chain: SamplerChain, n: int = 200, logits: list[float] = LOGITS) -> list[int]:
    out = []
    for _ in range(n):
        selected, rows = chain.apply(candidates(logits))
        token = int(rows["id"][selected])
        chain.accept(token)
        out.append(token)
    return out


@pytest.fixture
def chain(model: Model) -> SamplerChain:
    return SamplerChain(model.vocab, 128)


def test_greedy_takes_the_likeliest(chain: SamplerChain) -> None:
    assert picks(chain.greedy(), 3, [0.0, 2.0, 1.0]) == [1, 1, 1]


def test_dist_follows_probability(chain: SamplerChain) -> None:
    counts = np.bincount(picks(chain.dist(1), 2000), minlength=8)
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum()
    assert np.abs(counts / 2000 - expected).max() < 0.04


def test_top_k_keeps_k(chain: SamplerChain) -> None:
    assert set(left_by(chain.top_k(3))) == {0, 1, 2}


def test_top_p_keeps_the_nucleus(chain: SamplerChain) -> None:
    # probabilities: 0.49, 0.30, 0.18, …
    assert set(left_by(chain.top_p(0.7))) == {0, 1}


def test_min_p_keeps_the_relatively_likely(chain: SamplerChain) -> None:
    assert set(left_by(chain.min_p(0.5))) == {0, 1}


def test_typical_drops_the_least_surprising_too(chain: SamplerChain) -> None:
    kept = set(left_by(chain.typical(0.25)))
    assert kept == {1}  # its surprise is nearest the entropy; the likeliest goes


def test_temperature_scales(chain: SamplerChain) -> None:
    kept = left_by(chain.temperature(2.0))
    assert kept[0] == pytest.approx(2.0)
    assert kept[7] == pytest.approx(-1.5)


def test_dynamic_temperature_depends_on_entropy(model: Model) -> None:
    def scale(logits: list[float]) -> float:
        kept = left_by(SamplerChain(model.vocab).dynamic_temperature(1.0, 0.9, 1.0), logits)
        return (kept[0] - kept[1]) / (logits[0] - logits[1])

    sure, unsure = [9.0, 1.0, 0.0], [1.2, 1.1, 1.0]
    assert scale(sure) > 2 * scale(unsure)


def test_xtc_drops_the_top_choices(chain: SamplerChain) -> None:
    # probability 1: of the tokens above the threshold only the least likely stays
    assert 0 not in left_by(chain.xtc(1.0, 0.1, 0, 7))


def test_top_n_sigma_cuts_by_deviation(chain: SamplerChain) -> None:
    assert set(left_by(chain.top_n_sigma(1.0))) == {0, 1, 2}


def test_mirostat_holds_surprise_down(model: Model) -> None:
    zipf = (-1.1 * np.log(np.arange(1, 1001))).tolist()
    low = picks(SamplerChain(model.vocab).mirostat(3, 0.5, 0.1), 100, zipf)
    high = picks(SamplerChain(model.vocab).mirostat(3, 6.0, 0.1), 100, zipf)
    assert np.mean(low[50:]) < np.mean(high[50:])


def test_mirostat_v2_holds_surprise_down(model: Model) -> None:
    flat = [1.0 - 0.01 * i for i in range(200)]
    low = picks(SamplerChain(model.vocab).mirostat_v2(3, 0.1, 0.9), 100, flat)
    high = picks(SamplerChain(model.vocab).mirostat_v2(3, 9.0, 0.9), 100, flat)
    assert np.mean(low[50:]) < np.mean(high[50:])


@pytest.mark.parametrize(
    ("repeat", "frequency", "presence", "expected"),
    [(2.0, 0.0, 0.0, 2.0), (1.0, 0.5, 0.0, 3.0), (1.0, 0.0, 0.5, 3.5)],
)
def test_penalties_lower_what_was_accepted(
    chain: SamplerChain, repeat: float, frequency: float, presence: float, expected: float
) -> None:
    chain.penalties(8, repeat, frequency, presence)
    chain.accept(0)
    chain.accept(0)
    kept = left_by(chain)
    assert kept[0] == pytest.approx(expected)
    assert kept[1] == pytest.approx(3.5)


def test_penalties_forget_after_last_n(chain: SamplerChain) -> None:
    chain.penalties(2, 2.0, 0.0, 0.0)
    for token in (0, 1, 2):
        chain.accept(token)
    kept = left_by(chain)
    assert kept[0] == 4.0
    assert kept[1] < 3.5
    assert kept[2] < 3.0


def test_looking_back_further_than_memory_reaches_is_harmless(model: Model) -> None:
    for add in (
        lambda chain: chain.penalties(2**31 - 1, 2.0, 0.0, 0.0),
        lambda chain: chain.dry(1.0, 2.0, 2, 2**31 - 1, ("\n",)),
    ):
        with SamplerChain(model.vocab, 128) as chain:
            add(chain)
            chain.accept(0)
            assert len(chain.apply(candidates())[1]) == len(LOGITS)


def test_dry_lowers_what_would_repeat(chain: SamplerChain) -> None:
    chain.dry(1.0, 2.0, 2, 64, ("\n",))
    words = chain.vocab.tokenize("alpha beta gamma delta alpha beta gamma")
    for token in words:
        chain.accept(token)
    follow_up = chain.vocab.tokenize("alpha beta gamma delta")[-1]
    logits = np.zeros(chain.vocab.n_tokens).tolist()
    kept = left_by(chain, logits)
    assert kept[follow_up] < 0
    assert sum(value < 0 for value in kept.values()) <= 2


def need_adaptive_p(model: Model) -> None:
    if not model.library.has("llama_sampler_init_adaptive_p"):
        pytest.skip(f"{model.library.release} has no adaptive-p")


def test_adaptive_p_aims_at_a_probability(model: Model) -> None:
    need_adaptive_p(model)
    aimed = picks(SamplerChain(model.vocab).adaptive_p(0.05, 0.5, 5), 300)
    free = picks(SamplerChain(model.vocab).dist(5), 300)
    assert aimed.count(0) < free.count(0)


def test_logit_bias_adds_and_forbids(chain: SamplerChain) -> None:
    chain.logit_bias({5: 100.0, 0: float("-inf")})
    kept = left_by(chain)
    assert 0 not in kept
    assert kept[5] == pytest.approx(99.0)


def test_infill_ends_where_nothing_is_likely(chain: SamplerChain) -> None:
    # The end-of-text token outweighs the rest together, so nothing else is left.
    eog = min(chain.vocab.eog_tokens)
    logits = np.full(chain.vocab.n_tokens, -30.0)
    logits[eog] = 5.0
    logits[1000] = 1.0
    assert set(left_by(chain.top_k(2).infill(), logits.tolist())) == {eog}


def decode_prompt(context: Context, text: str) -> Batch:
    batch = Batch(context.n_batch, context.model.vocab.n_tokens)
    tokens = context.model.vocab.as_array(context.model.vocab.tokenize(text))
    context.memory.clear()
    batch.extend(tokens, 0, outputs="last")
    context.decode(batch)
    return batch


def generate(context: Context, chain: SamplerChain, prompt: str, n: int = 8) -> list[int]:
    batch = decode_prompt(context, prompt)
    pos = batch.n_tokens
    out: list[int] = []
    for _ in range(n):
        token = chain.sample(context)
        out.append(token)
        if context.model.vocab.is_eog(token):
            break
        batch.clear()
        batch.add(token, pos, output=True)
        context.decode(batch)
        pos += 1
    return out


CONFIGS = [
    SamplingConfig(seed=11, temperature=1.5, top_k=0, top_p=1.0, min_p=0.0),
    SamplingConfig(seed=11, xtc_probability=0.5, xtc_threshold=0.05, temperature=1.2),
    SamplingConfig(seed=11, mirostat=1, temperature=1.2),
    SamplingConfig(seed=11, mirostat=2, temperature=1.2),
    SamplingConfig(seed=11, repeat_penalty=1.3, dry_multiplier=0.8, typical_p=0.9, temperature=1.3),
    SamplingConfig(seed=11, dynatemp_range=0.5, top_n_sigma=2.0, temperature=1.2),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["dist", "xtc", "miro1", "miro2", "dry", "dyna"])
def test_same_seed_same_tokens_twice_and_after_reset(
    context: Context, config: SamplingConfig
) -> None:
    vocab = context.model.vocab
    with build_chain(config, vocab, 512) as one, build_chain(config, vocab, 512) as two:
        first = generate(context, one, "Once upon a time", 12)
        assert generate(context, two, "Once upon a time", 12) == first
        one.reset()
        assert generate(context, one, "Once upon a time", 12) == first
    with build_chain(config.replace(seed=12), vocab, 512) as other:
        assert generate(context, other, "Once upon a time", 12) != first


def test_adaptive_p_repeats_by_seed_and_after_reset(model: Model) -> None:
    need_adaptive_p(model)
    chain = SamplerChain(model.vocab).adaptive_p(0.3, 0.9, 5)
    first = picks(chain, 50)
    chain.reset()
    assert picks(chain, 50) == first
    assert picks(SamplerChain(model.vocab).adaptive_p(0.3, 0.9, 5), 50) == first


def test_fast_greedy_equals_the_native_sampler(context: Context) -> None:
    decode_prompt(context, "The capital of France is")
    native = context.library.llama_sampler_init_greedy()
    try:
        expected = context.library.llama_sampler_sample(native, context.handle, -1)
    finally:
        context.library.llama_sampler_free(native)
    assert SamplerChain(context.model.vocab).greedy().sample(context) == expected


@pytest.mark.parametrize(
    "misuse",
    [
        lambda chain: chain.greedy().top_k(3),
        lambda chain: chain.logit_bias({10**6: 1.0}),
        lambda chain: chain.accept(-1),
        lambda chain: chain.logit_bias(dict.fromkeys(range(chain.vocab.n_tokens), -np.inf)),
        lambda chain: chain.apply(candidates()[:0]),
    ],
)
def test_misuse_is_refused_before_native_code(
    chain: SamplerChain, misuse: Callable[[SamplerChain], object]
) -> None:
    with pytest.raises(InvalidParameter):
        misuse(chain)
