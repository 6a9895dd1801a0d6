# SPDX-License-Identifier: Apache-2.0
"""The account of PROTOCOL 7, kept beside the broker: what was published, what each subscription was told, and whether
delivered and gaps make what was published. Written from PROTOCOL.md alone."""
import collections

COUNTED = ("overflow", "dropped_oldest", "dropped_newest", "conflated", "expired")
POLICY_OF = {"dropped_oldest": "drop_oldest", "dropped_newest": "drop_newest", "conflated": "conflate"}

Event = collections.namedtuple("Event", "path ident has_ttl")


class Violation(AssertionError):
    """What PROTOCOL.md promises and did not happen."""


def demand(condition, *what):
    if not condition:
        raise Violation(" ".join(str(part) for part in what))


def segments(text):
    return text.split("/") if text else []


def matches(pattern, path):
    """PROTOCOL 3."""
    wanted, there = segments(pattern), segments(path)
    if wanted and wanted[-1] == "*":
        wanted.pop()
        if len(there) < len(wanted):
            return False
        there = there[:len(wanted)]
    return len(wanted) == len(there) and all(w in ("?", t) for w, t in zip(wanted, there))


def may_match(pattern, channel):
    return not segments(pattern) or segments(pattern)[0] in ("?", "*", channel)


class Epoch:
    """A channel while its sequences mean the same: sequence -> event."""

    def __init__(self, channel, before=None, last=0):
        self.channel = channel
        self.events = {n: event for n, event in before.events.items() if n <= last} if before else {}
        self.last = last
        self.before = before  # that it goes on from, behind `last`
        self.begins = last

    def add(self, sequence, event):
        known = self.events.setdefault(sequence, event)
        demand(known.ident == event.ident, self.channel, sequence, "is", event.ident, "and was", known.ident)
        self.last = max(self.last, sequence)

    def shares(self, other):
        """The last sequence that means the same here as in the epoch `other`, which is not a later one; None: none does."""
        epoch, last = self, None
        while epoch is not None:
            if epoch is other:
                return last if last is not None else other.last
            last = epoch.begins if last is None else min(last, epoch.begins)
            epoch = epoch.before
        return None


class Truth:
    """What was published, as far as its publishers and those who read it know."""

    def __init__(self):
        self.epochs = {}   # channel -> its epochs, the newest last
        self.lives = {}    # (channel, life) -> epoch
        self.maybe = {}    # ident -> event: published, and its sequence is not known
        self.refused = {}  # ident -> why
        self.losing = set()  # channels whose events go by trimming or retention

    def current(self, channel):
        return self.epochs[channel][-1] if self.epochs.get(channel) else None

    def begin(self, channel, last=None):
        """A new epoch; with @last it goes on behind that sequence of the one before."""
        before = self.current(channel) if last is not None else None
        self.epochs.setdefault(channel, []).append(Epoch(channel, before, last or 0))

    def learn(self, channel, life):
        self.lives[channel, life] = self.current(channel)

    def epoch_of(self, channel, life):
        """A life that nobody was told before begins with the first event of a run (PROTOCOL 7.5)."""
        return self.lives.setdefault((channel, life), self.current(channel))

    def taken(self, channel, sequence, event):
        self.maybe.pop(event.ident, None)
        self.current(channel).add(sequence, event)

    def seen(self, epoch, sequence, path, ident):
        """An event that came to somebody."""
        demand(ident not in self.refused, path, ident, "was refused:", self.refused.get(ident))
        event = epoch.events.get(sequence)
        if event is None:
            event = self.maybe.get(ident)
            demand(event is not None, epoch.channel, sequence, ident, "was never published")
            epoch.add(sequence, event)
        demand((event.path, event.ident) == (path, ident), epoch.channel, sequence, "is", event.ident, "but came as", ident)


class Stretch:
    """What one subscription was told of one channel, as long as it went on without a break."""

    def __init__(self, epoch, at):
        self.epoch = epoch
        self.start = self.at = at
        self.delivered = []
        self.told = 0   # events in counted gaps
        self.holes = []  # gaps without a count

    def in_hole(self, sequence):
        return any(first <= sequence <= last for first, last in self.holes)


class Account:
    """One subscription, and what it becomes when it is resumed."""

    def __init__(self, truth, patterns, overflow=None, early=False, start=None, until=None):
        self.truth = truth
        self.patterns = patterns
        self.overflow = overflow
        self.early = early
        self.start = start
        self.until = until
        self.stretches = {}  # channel -> the one that goes on
        self.closed = []
        self.lives = {}      # channel -> the last life that was told
        self.limits = {}     # channel -> (epoch, last sequence that is wanted)
        self.owed = {}       # channel -> reason of the gap that must come first
        self.resumes_after = False  # its newest subscribe gave places, not a cursor
        self.over = set()    # channels that were removed before their end, which is a sequence
        self.retained = {}
        self.is_resumed = False
        self.has_ended = False
        self.reasons = collections.Counter()

    def __str__(self):
        return (f"patterns {self.patterns} from {self.start} until {self.until} overflow {self.overflow} early {self.early} "
                f"resumed {self.is_resumed} at { {c: s.at for c, s in self.stretches.items()} } gaps {dict(self.reasons)}")

    def wants(self, path):
        return any(matches(pattern, path) for pattern in self.patterns)

    @property
    def places(self):
        """For `after` (PROTOCOL 7.5)."""
        return {channel: [stretch.at, self.lives[channel]] if self.lives.get(channel) is not None else stretch.at
                for channel, stretch in self.stretches.items()}

    # --- what it is told --------------------------------------------------------------------------------

    def subscribed(self, positions, ends=None):
        given = {channel: (stretch.epoch, stretch.at) for channel, stretch in self.stretches.items()} if self.is_resumed else {}
        for channel in list(self.stretches):
            self.close(channel)
        self.over.clear()
        for channel, sequence, *life in positions:
            epoch = self.epoch(channel, life)
            self.stretches[channel] = Stretch(epoch, sequence)
            if channel in given:
                self.resumed(channel, *given[channel])
        for channel in set(given) - set(self.stretches):
            self.stretches[channel] = Stretch(given[channel][0], given[channel][1])
            self.owed[channel] = "restart"
        for channel, end in (ends or {}).items():
            sequence, *life = end if isinstance(end, list) else [end]
            self.limits[channel] = (self.epoch(channel, life, keep=False), sequence)

    def resumed(self, channel, epoch, at):
        """PROTOCOL 7.5, the table."""
        stretch = self.stretches[channel]
        shared = stretch.epoch.shares(epoch)
        if shared is None:
            self.owed[channel] = "restart"
        elif at > shared and epoch is not stretch.epoch:
            demand(stretch.at in (shared, at), channel, "goes on behind", stretch.at, "instead of", shared)
            self.owed[channel] = "retracted"
        else:
            demand(stretch.at == at, channel, "goes on behind", stretch.at, "and was told", at)

    def epoch(self, channel, life, keep=True):
        """The epoch of a life that was told, or of the one told before."""
        told = life[0] if life else self.lives.get(channel)
        if keep and life:
            self.lives[channel] = told
        return self.truth.epoch_of(channel, told)

    def stretch_of(self, channel, life):
        stretch = self.stretches.get(channel)
        if stretch is None:  # PROTOCOL 7.1: a channel that is not named begins at 0
            stretch = self.stretches[channel] = Stretch(self.epoch(channel, life), 0)
        return stretch

    def deliver(self, ranges, events, gaps):
        self.gaps(gaps or [])
        for channel, start, end, *life in ranges:
            demand(channel not in self.over, channel, "is told of, and was removed before its end")
            demand(channel not in self.owed, channel, "has a range before the gap", self.owed.get(channel))
            stretch = self.stretch_of(channel, life)
            self.goes_on(channel, stretch, life)
            demand(stretch.at == start, f"{channel}: range {start}..{end} behind {stretch.at}")
            demand(start < end or (gaps and start == end), f"{channel}: empty range {start}..{end}")
            self.within(channel, stretch, end)
            stretch.at = end
        for event in events:
            self.event(event)

    def goes_on(self, channel, stretch, life):
        """A new life means that all before it still holds (PROTOCOL 7.5). A gap that counts can be the first to have it."""
        before = self.lives.get(channel)
        demand(not life or self.epoch(channel, life) is stretch.epoch, channel, "is in the life", life, "behind",
               stretch.at, "and was in", before, "without a gap")

    def event(self, event):
        channel = (segments(event["path"]) or [""])[0]
        stretch = self.stretches.get(channel)
        demand(stretch is not None, channel, "has no range, and an event came")
        sequence, ident = event["seq"], tuple(event["payload"][:3])
        demand(self.wants(event["path"]), event["path"], "is not wanted")
        before = stretch.delivered[-1] if stretch.delivered else stretch.start
        demand(before < sequence <= stretch.at, f"{channel}: {sequence} came behind {before}, told up to {stretch.at}")
        self.truth.seen(stretch.epoch, sequence, event["path"], ident)
        stretch.delivered.append(sequence)

    def gaps(self, gaps):
        for channel, first, last, count, reason, *life in gaps:
            self.reasons[reason] += 1
            stretch = self.stretch_of(channel, life)
            is_removed = reason == "restart" and channel not in self.owed
            owed = self.owed.pop(channel, reason)
            demand(owed == reason, channel, "has a gap", reason, "before the gap", owed)
            if reason == "restart":
                demand(last is None and count is None, "a gap restart with an end or a count")
                self.close(channel)
                has_end = self.until is not None and not (isinstance(self.until, dict) and "time" in self.until)
                if has_end and (is_removed or self.resumes_after):
                    self.over.add(channel)
                if life:
                    self.stretches[channel] = Stretch(self.epoch(channel, life), 0)
            elif reason == "retracted":
                self.retracted(channel, stretch, first, last, life)
            else:
                self.goes_on(channel, stretch, life)
                self.lost(channel, stretch, first, last, count, reason)

    def retracted(self, channel, stretch, first, last, life):
        demand(first - 1 <= stretch.at and first <= last, f"{channel}: {first}..{last} retracted at {stretch.at}")
        epoch = self.epoch(channel, life)
        self.close(channel)
        self.stretches[channel] = Stretch(epoch, first - 1)

    def lost(self, channel, stretch, first, last, count, reason):
        demand(stretch.at + 1 == first and first <= last, f"{channel}: gap {first}..{last} behind {stretch.at}")
        self.within(channel, stretch, last)
        if reason == "trimmed":
            asked = self.is_resumed or isinstance(self.start, (int, dict))
            demand(asked or channel in self.truth.losing, channel, "is trimmed and nobody did that")
        else:
            demand(reason in COUNTED and isinstance(count, int), f"a gap {reason} with the count {count}")
            demand(POLICY_OF.get(reason, self.overflow) == self.overflow, f"a gap {reason} with the policy {self.overflow}")
            demand(1 <= count <= last - first + 1, f"{channel}: {count} events in the gap {first}..{last}")
        stretch.at = last
        if isinstance(count, int):
            stretch.told += count
        else:
            stretch.holes.append((first, last))

    def within(self, channel, stretch, end):
        limit = self.limits.get(channel)
        if limit is not None and limit[0] is stretch.epoch:
            demand(end <= limit[1], channel, "is told", end, "beyond the end", limit[1])
        elif isinstance(self.until, int):
            demand(end <= self.until, channel, "is told", end, "beyond the end", self.until)

    def keep(self, events):
        """A `deliver` with retained values."""
        for event in events:
            demand(self.wants(event["path"]), "a retained value that is not wanted:", event["path"])
            demand(event["path"] not in self.retained, "two retained values of", event["path"])
            self.retained[event["path"]] = event["seq"]

    def ended(self, code):
        demand(code == "done", "ended with", code)
        self.has_ended = True

    def close(self, channel):
        self.closed.append(self.stretches.pop(channel))

    # --- the judgement ----------------------------------------------------------------------------------

    def missing(self):
        """What is published and wanted, and neither came nor is in a gap: (channel, sequence) of each."""
        if self.has_ended and self.until is None:
            return []
        found = [(channel, "gap", reason) for channel, reason in self.owed.items()]
        channels = {channel for channel in self.truth.epochs for pattern in self.patterns if may_match(pattern, channel)}
        for channel in channels:
            epoch, at = self.truth.current(channel), 0
            if channel in self.over:
                continue
            if channel in self.stretches:
                stretch = self.stretches[channel]
                if stretch.epoch is not epoch and epoch.shares(stretch.epoch) is None:
                    if self.until is None:
                        found.append((channel, "gap", "restart"))
                    continue
                at = stretch.at
            last = self.limit_of(channel, epoch)
            found += [(channel, sequence) for sequence, event in epoch.events.items()
                      if at < sequence <= last and self.wants(event.path)]
        return found

    def waits_for_more(self):
        """Whether the end is a sequence that some channel has not reached."""
        return isinstance(self.until, int) and any(
            self.truth.current(channel).last < self.until for channel in self.truth.epochs if channel not in self.over
            if any(may_match(pattern, channel) for pattern in self.patterns))

    def limit_of(self, channel, epoch):
        if isinstance(self.until, int):
            return self.until
        if self.until is not None:
            limit = self.limits.get(channel)
            return limit[1] if limit is not None and epoch.shares(limit[0]) is not None else 0
        return epoch.last

    def judge(self):
        """To be called when all that was published is known."""
        for stretch in [*self.closed, *self.stretches.values()]:
            inside = range(stretch.start + 1, stretch.at + 1)
            is_over = stretch.epoch is not self.truth.current(stretch.epoch.channel)  # with what nobody heard of at its end
            wanted = [n for n, event in stretch.epoch.events.items()
                      if n in inside and self.wants(event.path) and not stretch.in_hole(n)]
            unknown = sum(n not in stretch.epoch.events and not stretch.in_hole(n) and (is_over or n <= stretch.epoch.last)
                          for n in inside)
            came = sum(not stretch.in_hole(n) for n in stretch.delivered)
            demand(len(wanted) <= came + stretch.told <= len(wanted) + unknown,
                   f"{stretch.epoch.channel} {stretch.start}..{stretch.at}: {came} came, {stretch.told} in gaps, published "
                   f"{len(wanted)}, and {unknown} of which nothing is known")
