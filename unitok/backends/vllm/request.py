"""Requests of our engine as vLLM's: a prompt, and how each sample of it is sampled."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from unitok.backends.vllm.drawings import GUIDANCE
from unitok.backends.vllm.layout import NO_DRAWINGS, TokenLayout
from unitok.backends.vllm.readings import reading_prompt
from unitok.families.janus import Template
from unitok_engine import Branch, FreePlan, GridPlan, Plan, Request

if TYPE_CHECKING:
    from vllm import SamplingParams  # pyright: ignore

Refusal = tuple[str, str]  # what cannot be done, and why
SEEDS = 2**63  # vLLM takes -1 for no seed, so it gets only what lies in [0, SEEDS)


@dataclass(frozen=True)
class Translator:
    """Makes requests for vLLM, and refuses those that it could not run as ours.

    Attributes:
        layout: Where vLLM's token ids lie.
        template: The model's prompts.
        max_context: The most tokens of a prompt and what follows it.
        priorities: Whether vLLM's scheduler goes by priorities.
    """

    layout: TokenLayout
    template: Template
    max_context: int
    priorities: bool = True

    def check(self, request: Request) -> None:
        """See whether vLLM can run a request.

        Raises:
            ValueError: It cannot; the message says why.
        """
        if isinstance(request.plan, GridPlan) and not self.layout.draws:
            raise ValueError(NO_DRAWINGS)
        if refused := self._refusal(request) or self._refusal_of_branches(request):
            what, why = refused
            raise ValueError(f"{what} is not for the vLLM backend: {why}")
        prompt, new = len(request.branches[0].token_ids), request.max_length
        if prompt + new > self.max_context:
            raise ValueError(
                f"a prompt of {prompt} ids and up to {new} new ones exceed the context of "
                f"{self.max_context}"
            )

    def _refusal(self, request: Request) -> Refusal | None:
        """What of a request cannot be done, but for its branches; None if all can."""
        if request.given:
            return "scoring given tokens", "vLLM tells no log-probabilities of them"
        if request.adapter is not None:
            return f"adapter {request.adapter!r}", "it has one set of weights"
        if request.tries > 1 or request.plans or is_partial(request.plan):
            return "painting a part of a picture", "the image ids that stay would have to be forced"
        if request.branch_logprobs:
            return "branch_logprobs", "vLLM keeps no logits but the mixed ones, which it samples"
        if request.priority and not self.priorities:
            return (
                "priority",
                "this one goes by arrival; start it with --scheduling-policy priority",
            )
        if not is_plain(request.plan):
            return "an answer of a form (json_schema, regex, choice)", "the form is a plan of ours"
        return None

    def _refusal_of_branches(self, request: Request) -> Refusal | None:
        """Why a request's branches cannot be two streams; None if they can."""
        first, *others = request.branches
        if isinstance(request.plan, FreePlan):
            return ("an answer to several prompts", "it follows one") if others else None
        if len(others) > 1:
            return "an edit by an instruction", "that takes three branches, and it has two"
        if others and (refused := self._refusal_of_second(first, others[0])):
            return refused
        if first.embeddings:
            return "images in the prompt of a drawing", "it draws from text alone"
        return None

    def _refusal_of_second(self, first: Branch, second: Branch) -> Refusal | None:
        """Why the branch that guidance steers away from is not what the second stream sees."""
        seen = self.layout.second_prompt(self.layout.drawing_prompt(first.token_ids))
        if list(second.token_ids) == seen and not second.embeddings:
            return None
        together = "both prompts run in one request, token beside token, and they differ in length"
        is_dropped = set(second.token_ids[1:-1]) == {self.layout.pad} and not second.embeddings
        return "a drawing inside a chat" if is_dropped else "negative_prompt", together

    def prompt(self, request: Request) -> dict[str, Any]:
        """The prompt as vLLM takes it: token ids, and the pixels of pictures that are read."""
        branch = request.branches[0]
        if isinstance(request.plan, GridPlan):
            return {"prompt_token_ids": self.layout.drawing_prompt(branch.token_ids)}
        pictures = sorted(branch.embeddings, key=lambda picture: picture.start)
        if not pictures:
            return {"prompt_token_ids": list(branch.token_ids)}
        return {
            "prompt_token_ids": reading_prompt(branch.token_ids, self.template),
            "multi_modal_data": {"image": [picture.payload for picture in pictures]},
            "multi_modal_uuids": {"image": [picture.digest for picture in pictures]},
        }

    def sampling(self, request: Request, sample: int) -> SamplingParams:
        """How a sample is sampled, as vLLM takes it."""
        from vllm import SamplingParams  # pyright: ignore
        from vllm.sampling_params import RequestOutputKind  # pyright: ignore

        ours, plan = request.sampling, request.plan
        return SamplingParams(
            temperature=ours.temperature,
            top_k=ours.top_k,
            top_p=ours.top_p,
            min_p=ours.min_p,
            repetition_penalty=ours.repetition_penalty,
            seed=seed_of(*request.noise_of(sample)),
            max_tokens=plan.max_length,
            stop_token_ids=sorted(plan.stop_ids) if isinstance(plan, FreePlan) else [],
            ignore_eos=True,  # the plan's are all that stop it
            logprobs=0 if request.logprobs else None,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args=self._guidance(request),
        )

    def _guidance(self, request: Request) -> dict[str, Any] | None:
        drawing = isinstance(request.plan, GridPlan)
        return {GUIDANCE: request.branches[0].weight} if drawing else None


def is_plain(plan: Plan) -> bool:
    """Whether a plan is text without a form, or a picture without marks."""
    if isinstance(plan, GridPlan):
        return plan.row_end is None and not plan.closing
    return isinstance(plan, FreePlan) and plan.mask is None


def is_partial(plan: Plan) -> bool:
    """Whether a plan is of a picture of which a part is known."""
    return isinstance(plan, GridPlan) and bool(plan.known)


def seed_of(seed: int, number: int) -> int:
    """A seed for vLLM.

    Args:
        seed: The seed of the request, or of the sample alone.
        number: The number of the sample among those of this seed.
    """
    if number == 0 and 0 <= seed < SEEDS:
        return seed
    named = blake2b(f"{seed} {number}".encode(), digest_size=8)
    return int.from_bytes(named.digest(), "little") % SEEDS
