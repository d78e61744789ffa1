"""Which way a call goes: its model, its destination, and after a failure the next that the operator's rule names.

Each way is held against the lists of the client key and the team: a fallback is no way around what they may not use.
None leaves an upstream that the client chose, nor OpenRouter where the user or the call says who alone may have the
prompt.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from accounts.users import UpstreamChoice
from billing.forecast import CostForecasts
from formats.body import CallBody
from foundation import json_members
from foundation.errors import AppError, BadRequest, Forbidden
from foundation.logs import event
from gateway.aliases import Aliases
from gateway.destinations import Destination, Destinations
from gateway.failures import Failure
from gateway.model_rules import Fallback, ModelRules, RuleTerms
from gateway.paces import Paces, shares
from gateway.request import ProxyRequest
from gateway.route import Route

log = logging.getLogger("proxy")


class Router:
    """Makes the routes of calls."""

    def __init__(
        self, destinations: Destinations, aliases: Aliases, rules: ModelRules, forecasts: CostForecasts
    ) -> None:
        self._destinations = destinations
        self.aliases = aliases
        self.rules = rules
        self._forecasts = forecasts
        self._paces = Paces()

    def first(self, request: ProxyRequest) -> Route:
        """A call's first route. Raises AppError."""
        body = request.api.read(request.body.data)
        if key := request.caller.client_key:
            key.check_scope(request.api.name)
        body = self.aliases.resolve(body, request)
        rule = self.rules.of(body)
        to = self._choose(request, body, rule)
        if request.api.is_job and to.upstream_id is not None:
            raise BadRequest(f"Videos are made by OpenRouter alone, and this call would go to the upstream {to.name}")
        _check_allowed(request, body, to)
        pace = self._paces.of(to.name, body.model, body.stream) if rule.choose_by == "latency" else None
        return Route(request, body, to, self._forecasts, rule.timeout_seconds or 0, rule.fallbacks, pace)

    def after(self, request: ProxyRequest, route: Route, failure: Failure) -> Iterator[Route]:
        """The ways that are left to a call whose route failed, in the rule's order."""
        for number, fallback in enumerate(route.fallbacks, 1):
            if failure in fallback.after:
                try:
                    yield self._fall_back(request, route, fallback, number)
                except AppError as error:
                    note_skipped(request, fallback.model, error)

    def _fall_back(self, request: ProxyRequest, route: Route, fallback: Fallback, number: int) -> Route:
        body = route.body.led_to(fallback.model)
        to = self._destinations.choose(fallback.upstream or request.upstream, body.model)
        if request.upstream and to.name != request.upstream:
            raise Forbidden("The client asks for one upstream by X-Upstream")
        if to is not route.to and route.to.upstream_id is None:
            _check_may_leave_openrouter(request, route)
        _check_allowed(request, body, to)
        return Route(request, body, to, self._forecasts, fallbacks=route.fallbacks[number:])

    def _choose(self, request: ProxyRequest, body: CallBody, rule: RuleTerms) -> Destination:
        """The client's choice goes before the rule's, and that before the usual one."""
        if request.upstream or not rule.upstreams:
            return self._destinations.choose(request.upstream, body.model)
        usable = [to for name in rule.upstreams if (to := self._destinations.find(name)) and _is_usable(request, to)]
        if not usable:  # says why
            return self._destinations.choose(next(iter(rule.upstreams)), body.model)
        if rule.choose_by == "price":
            size = request.body.size if body.prompt_bytes is None else body.prompt_bytes
            return min(usable, key=lambda to: to.prices.most_nano(body, size))
        if rule.choose_by == "latency":
            weights = shares([self._paces.of(to.name, body.model, body.stream) for to in usable])
        else:
            weights = [rule.upstreams[to.name] for to in usable]
        return request.draw(body, f"upstream of {body.model}", usable, weights)


def _is_usable(request: ProxyRequest, to: Destination) -> bool:
    is_allowed = all(lists.allows_upstream(to.name) for lists in request.caller.allow_lists)
    return is_allowed and not to.reach.is_away and not (request.api.is_job and to.upstream_id is not None)


def _check_allowed(request: ProxyRequest, body: CallBody, to: Destination) -> None:
    for lists in request.caller.allow_lists:
        lists.check_upstream(to.name)
        lists.check_model([*body.names, *body.others])


def _check_may_leave_openrouter(request: ProxyRequest, route: Route) -> None:
    if route.to.keys.choice_of(request.caller.user_id) is UpstreamChoice.DEDICATED_ONLY:
        raise Forbidden("The user wants calls on an own key of OpenRouter's alone")
    if not route.body.is_form and "provider" in json_members.members(request.body.data):
        raise Forbidden("The call says in `provider` who of OpenRouter's providers may have it")


def note_skipped(request: ProxyRequest, model: str, error: AppError) -> None:
    """Log why a fallback was not tried."""
    event(log, "fallback_skipped", request_id=request.request_id, model=model, reason=error.message)
