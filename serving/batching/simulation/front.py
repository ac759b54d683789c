"""What stands before an engine: the pacer's rules in virtual time, or nothing at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

from serving.batching.capacity import Bounds, Capacity, capacity
from serving.batching.jobs import Job, Reason, Refusal, due
from serving.batching.orders import Orders
from serving.batching.policy import Policy
from serving.batching.simulation.engine import Engine
from serving.batching.simulation.fair import FairEngine
from serving.batching.simulation.requests import Request
from serving.batching.steptime import Step
from serving.types import ServiceClass
from tenants.country import Slo


@dataclass(slots=True)
class Pumped:
    """What a look at those who wait came to."""

    started: list[Request] = field(default_factory=list)
    expired: list[Request] = field(default_factory=list)


class Front(ABC):
    """Before one engine. Told of what the engine did, asked who goes next."""

    @property
    @abstractmethod
    def waiting(self) -> list[Request]:
        """Requests that are not in the engine yet."""

    @abstractmethod
    def offer(self, request: Request, now: float) -> Refusal | None:
        """Let a request wait, or turn it away."""

    @abstractmethod
    def pump(self, now: float) -> Pumped:
        """Who enters the engine now, and who is given up."""

    @abstractmethod
    def ended(self, request: Request) -> None:
        """Its answer is whole."""

    @abstractmethod
    def withdrawn(self, request: Request) -> None:
        """It left the engine unfinished."""


class OpenDoor(Front):
    """Everybody goes in at once, as long as the engine has less than vLLM's own cap."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._new: list[Request] = []

    @property
    def waiting(self) -> list[Request]:
        return self._new

    def offer(self, request: Request, now: float) -> Refusal | None:
        most = self._engine.size.max_num_queued_reqs
        if most is not None and len(self._engine.requests) >= most:
            return Refusal(Reason.OVERLOADED, None, "as many are unfinished as may be")
        request.enter(now + request.customer.promise.first_token_s, 1.0)
        self._new.append(request)
        return None

    def pump(self, now: float) -> Pumped:
        new, self._new = self._new, []
        return Pumped(started=new)

    def ended(self, request: Request) -> None:
        """It waits for nobody..."""

    def withdrawn(self, request: Request) -> None:
        """...to leave."""


class Paced(Front):
    """The policy, asked as :mod:`serving.batching.pacer` and the engine's own front ask it."""

    def __init__(self, engine: FairEngine, slo: Slo) -> None:
        self._engine = engine
        self._bounds = Bounds(engine.size.max_num_seqs, strictest_step_s(slo))
        patient = Orders.keeping(slo.promise(ServiceClass.BATCH).inter_token_s).step_s
        self._patient_s = max(patient, self._bounds.step_s)
        self._pressing = 0
        self._prefills: dict[str, int] = {}
        self._requests: dict[str, Request] = {}
        self._known: tuple[Step, bool] | None = None
        """What the room is of. A step that was like the one before leaves it as it was."""
        self._room = capacity(engine.reading(), self._bounds)
        self._policy = Policy(self._room.speed)

    @property
    def waiting(self) -> list[Request]:
        return list(self._requests.values())

    def offer(self, request: Request, now: float) -> Refusal | None:
        self._engine.settle(now)
        self._tell()
        room = self._capacity()
        self._policy.speed = room.speed
        job = _job(request, now, room.speed.prefill_s)
        refusal = self._policy.offer(job, now)
        if refusal is None:
            request.enter(job.first_token_by, job.share)
            self._requests[request.id] = request
            self._pressing += _presses(request)
        return refusal

    def pump(self, now: float) -> Pumped:
        found = Pumped()
        self._engine.settle(now)
        self._tell()
        room = self._capacity()
        self._policy.speed = room.speed
        for job in self._policy.expire(now):
            late = self._requests.pop(job.id)
            self._pressing -= _presses(late)
            found.expired.append(late)
        while job_started := self._policy.next(now, room.room(self._policy.running_streams)):
            request = self._requests.pop(job_started.id)
            self._prefills[request.id] = job_started.prefill_tokens
            found.started.append(request)
        self._engine.crowded = self._policy.waiting > 0
        return found

    def ended(self, request: Request) -> None:
        self._hear(request)
        self._policy.finished(request.id)
        del self._prefills[request.id]
        self._pressing -= _presses(request)

    def withdrawn(self, request: Request) -> None:
        self._policy.withdrawn(request.id)
        del self._prefills[request.id]
        self._pressing -= _presses(request)

    def _capacity(self) -> Capacity:
        known = self._engine.last, bool(self._pressing)
        if known != self._known:
            step_s = self._bounds.step_s if self._pressing else self._patient_s
            self._room = capacity(self._engine.reading(), replace(self._bounds, step_s=step_s))
            self._known = known
        return self._room

    def _tell(self) -> None:
        for request in self._engine.decoding:
            if request.answered > request.told:
                self._hear(request)

    def _hear(self, request: Request) -> None:
        prefill = self._prefills[request.id] if request.told < request.began_at else 0
        self._policy.served(request.id, prefill, request.answered - request.told)
        request.told = request.answered


def strictest_step_s(slo: Slo) -> float:
    """The longest step that keeps the strictest inter-token promise of all but those who asked to wait."""
    strict = min(slo.promise(one).inter_token_s for one in ServiceClass if one is not ServiceClass.BATCH)
    return Orders.keeping(strict).step_s


def _presses(request: Request) -> bool:
    return request.customer.service_class is not ServiceClass.BATCH


def _job(request: Request, now: float, prefill_s: float) -> Job:
    customer = request.customer
    return Job(
        id=request.id,
        organisation=customer.organisation,
        service_class=customer.service_class,
        weight=customer.weight,
        prompt_tokens=request.prompt_tokens,
        cached_tokens=0,
        answer_tokens=max(1, request.length.asked - request.answered),
        arrived=now,
        first_token_by=due(now, customer.promise.first_token_s, request.prompt_tokens * prefill_s),
        deadline=request.deadline,
    )
