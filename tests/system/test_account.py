# SPDX-License-Identifier: Apache-2.0
"""The account from outside: real brokers with random options, peers in both forms over both transports, kills and cuts. For
each subscription delivered and gaps make what was published, and ranges join.

run.py --seconds N says for how long, --seed N begins with that story; the seed of each story is printed."""
import json
import os
import random
import signal
import subprocess
import time
import unittest

import zmq

from account import Account, Event, Truth, Violation, demand
from broker import DEADLINE, Broker, Settings, child_setup, until
from command import Command
from peers import Client, Failure, JsonClient, random_id

POLICIES = ("slide", "slide", "drop_oldest", "drop_newest", "conflate", "refuse", "disconnect")
PLENTY = {"lives": True, "bytes": 1 << 40, "events": 1 << 40}
IN_FLIGHT = 4
FINAL = {"shutting_down", "bad_sequence"}  # the number is not used up


class Peer:
    """A client of the main door that waits for nothing once it is there."""

    def __init__(self, world, **hello):
        form = world.random.choice((JsonClient, Client))
        self.client = form(world.broker, transport=world.random.choice(("tcp", "ipc")), **hello)
        self.client.socket.setsockopt(zmq.RCVHWM, world.random.choice((10, 1000)))
        self.form = form.__name__

    def send(self, op, events=(), /, **fields):
        self.client.send(op, events, **fields)

    def take(self, most=200):
        """What has come, but for pings, which are answered."""
        for _ in range(most):
            if not self.client.socket.poll(0):
                return
            message = self.client.decode(b"".join(self.client.socket.recv_multipart()))
            if message["op"] == "ping":
                self.send("pong", token=message["token"])
            else:
                yield message

    def close(self):
        self.client.close()


class Publisher:
    """Numbered batches, repeated after each interruption."""

    def __init__(self, world, index):
        self.world = world
        self.index = index
        self.id = random_id()
        self.number = 0
        self.waiting = {}  # number -> (events, level)
        self.peer = None
        self.connect()

    def connect(self):
        if self.peer is not None:
            self.peer.close()
        self.peer = Peer(self.world, client=self.id, epoch=1)
        demand(self.peer.client.welcome["last"] <= self.number, "the broker knows a number that was not used")
        for number in range(min(self.waiting, default=0), self.number + 1 if self.waiting else 0):
            self.waiting.setdefault(number, ([], 0))  # answered before those below it: an empty batch takes its number
            self.send(number)

    def send(self, number):
        events, level = self.waiting[number]
        self.peer.send("publish", [event for event, _ in events], number=number, level=level)

    def publish(self, n):
        world, self.number = self.world, self.number + 1
        events = []
        for i in range(n):
            path = world.random.choice(world.paths)
            event = {"path": path, "payload": [self.index, self.number, i, "x" * world.random.choice(world.fillers)]}
            if world.random.random() < 0.2:
                event["priority"] = world.random.randint(-3, 3)
            if world.random.random() < world.ttl_share:
                event["ttl"] = world.random.choice((1, 20, 60000))
            known = Event(path, (self.index, self.number, i), "ttl" in event)
            world.truth.maybe[known.ident] = known
            events.append((event, known))
        self.waiting[self.number] = (events, world.random.choice(world.levels))
        self.send(self.number)

    def step(self):
        for message in self.peer.take():
            if message["op"] == "ack":
                for entry in message["entries"]:
                    self.acked(*entry)
            elif message["op"] == "error":
                self.refused(message)
            else:
                demand(message["op"] == "goodbye", "a publisher got", message)

    def acked(self, number, _level, _matches, positions, refused=()):
        events, _ = self.waiting.pop(number)
        bad = dict(map(tuple, refused or ()))
        for index, code in bad.items():
            self.forget(events[index][1], code)
        if positions is None:  # a repetition: where they are, others will see
            return
        good = iter(known for index, (_, known) in enumerate(events) if index not in bad)
        for channel, first, count in positions:
            for sequence in range(first, first + count):
                self.world.truth.taken(channel, sequence, next(good))
        demand(next(good, None) is None, "an ack leaves out an event")

    def refused(self, message):
        demand(message["about"] == 2 and message["corr"] in self.waiting, "an error about nothing:", message)
        if message["code"] in FINAL:
            demand(message["code"] != "bad_sequence", "number", message["corr"], "is refused:", message)
            return  # it is sent to the next broker
        events, _ = self.waiting.pop(message["corr"])
        for _, known in events:
            if message["code"] != "unknown_result":
                self.forget(known, message["code"])

    def forget(self, known, code):
        self.world.truth.maybe.pop(known.ident, None)
        self.world.truth.refused[known.ident] = code


class Subscriber:
    def __init__(self, world):
        choose = world.random.choice
        self.world = world
        patterns = sorted({choose(world.patterns) for _ in range(choose((1, 1, 2)))})
        self.options = {"overflow": choose(POLICIES)}
        if choose((True, False)):
            self.options["budget"] = choose((1 << 12, 1 << 14, 1 << 20))
        self.view = choose((None, "durable", "early"))
        start = choose((None, "new", "last", "oldest", "oldest", 1, choose((5, 50)), {"time": world.time_of_past()}))
        until_what = choose((None, None, None, "now", 40, {"time": int(time.time() * 1e6) + 200_000}))
        self.retained = choose((False, False, True)) and start in (None, "new")
        early = self.view == "early" or (self.view is None and world.has_early)
        self.account = Account(world.truth, patterns, self.options["overflow"], early, start, until_what)
        self.durable = choose((None, None, f"cursor-{len(world.subscribers)}"))
        self.is_deaf = False
        self.goodbye = None
        self.had = {"bytes": 0, "events": 0}
        self.peer = None
        self.connect()

    def connect(self):
        if self.peer is not None:
            self.peer.close()
        self.peer = Peer(self.world)
        choose = self.world.random.choice
        account = self.account
        self.had = {"bytes": choose((1, 4096, 1 << 20, 1 << 30)), "events": choose((0, 1, 50, 65536))}
        options = {**self.options, **self.had, "lives": True}
        if self.view:
            options["view"] = self.view
        start = account.start
        account.resumes_after = account.is_resumed and not self.durable
        if account.is_resumed and self.durable:
            start = None
            self.world.save_cursor(self.durable, account.places)
            options["durable"] = self.durable
        elif account.is_resumed:
            start = {"after": account.places}
        elif self.retained:
            options["retained"] = True
            account.retained.clear()
        if account.until is not None:
            options["until"] = self.until_again() if account.is_resumed else account.until
        self.peer.send("subscribe", corr=1, sub=1, patterns=account.patterns, options=options, **{"from": start})

    def until_again(self):
        """PROTOCOL 7.1: what "now" was is given as `last`."""
        if self.account.until != "now":
            return self.account.until
        lives = {id(epoch): life for (_, life), epoch in self.world.truth.lives.items()}
        return {"last": {channel: [sequence, lives[id(epoch)]] if lives.get(id(epoch)) is not None else sequence
                         for channel, (epoch, sequence) in self.account.limits.items()}}

    def cut(self):
        """Resume if there is something to go on from."""
        if self.account.has_ended or self.goodbye == "overflow":
            return
        self.goodbye = None
        self.account.is_resumed = self.account.is_resumed or bool(self.account.stretches)
        self.connect()

    def grant(self, amounts=None):
        for name in self.had:
            self.had[name] += amounts[name] if amounts else self.world.random.choice((0, 10, 5000, 1 << 20))
        if not self.account.has_ended and not self.goodbye:
            self.peer.send("credit", sub=1, **self.had)

    def step(self):
        for message in () if self.is_deaf else self.peer.take():
            self.got(message)

    def got(self, message):
        account, op = self.account, message["op"]
        if op == "subscribed":
            account.subscribed(message["positions"], message.get("ends"))
        elif op == "deliver" and message.get("retained"):
            account.keep(message["events"])
        elif op == "deliver":
            account.deliver(message["ranges"], message["events"], message.get("gaps"))
        elif op == "gap":
            account.gaps(message["gaps"])
        elif op == "ended":
            account.ended(message["code"])
        elif op == "goodbye":
            self.goodbye = message["code"]
            demand(self.goodbye in ("overflow", "shutting_down"), "goodbye:", message)
            demand(self.goodbye != "overflow" or self.options["overflow"] == "disconnect", "sent away:", message)
        else:
            # libzmq connects again by itself: credit can reach the next broker before hello.
            is_late_credit = op == "error" and message["about"] == 5 and (
                account.has_ended or message["code"] == "hello_first")
            demand(is_late_credit, "a subscriber got", message)

    def is_done(self):
        account = self.account
        if self.goodbye == "overflow":
            return True
        if account.until is not None and not account.has_ended and not account.waits_for_more():
            return False
        return not account.missing()


class World:
    """One story: a broker, what is done to it, and the judgement."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.truth = Truth()
        choose = self.random.choice
        self.has_log = choose((True, True, False))
        self.is_calm = choose((True, False, False, False))  # nothing that loses events
        self.ttl_share = 0 if self.is_calm else choose((0, 0, 0.2))
        self.fillers = choose(((0,), (0, 10, 100), (0, 2000)))
        self.levels = (0, 1, 2, 3) if self.has_log else (0, 1, 2)
        ring = choose(("64K", "256K", "16M"))
        arguments = ["--ring", "16M" if self.is_calm else ring, *(["--data", "{dir}/data"] if self.has_log else [])]
        if choose((True, False)):
            arguments.append("--libzmq")
        self.arguments = arguments
        self.broker = Broker("--insecure", *arguments)
        self.channels = ["alpha", "beta", "gamma"][:choose((1, 2, 3))]
        self.paths = [f"{channel}{rest}" for channel in self.channels for rest in ("", "/x", "/y", "/x/y", "/")]
        self.patterns = ["*", "?/x", *self.paths, *(f"{channel}/*" for channel in self.channels)]
        self.settings = {}
        self.has_early = False
        self.story = []
        self.publishers = []
        self.subscribers = []
        self.commands = []
        self.auditor = None
        self.started = int(time.time() * 1e6)

    def time_of_past(self):
        return self.random.randint(self.started, int(time.time() * 1e6))

    def tell(self, *what):
        self.story.append(" ".join(str(part) for part in what))

    # --- channels ---------------------------------------------------------------------------------------

    def request(self, op, **fields):
        return self.auditor.request(op, **fields)["value"]

    def add_channel(self, channel):
        choose = self.random.choice
        settings = {"store": choose(("log", "memory")) if self.has_log else "memory"}
        if settings["store"] == "log":
            settings["sync"] = choose((True, True, False))
            settings["early"] = choose((False, False, True))
            self.has_early = self.has_early or settings["early"]
        if not self.is_calm and choose((True, False, False)):
            settings.update(choose(({"max_events": 50}, {"max_per_path": 3}, {"max_bytes": 1 << 16})))
            self.truth.losing.add(channel)
        self.request("channel", action="add", name=channel, settings=settings)
        self.settings[channel] = settings
        self.tell("channel", channel, settings)
        self.truth.begin(channel)

    def add_again(self, channel, settings):
        """A broker with a log remembers the settings of all channels."""
        try:
            self.request("channel", action="add", name=channel, settings=settings)
        except Failure as failure:
            demand(failure.code == "exists" and self.has_log, "a channel is not added:", failure)

    def learn_lives(self):
        """Which lives the channels have now, from who asks for everything new."""
        answer = self.auditor.request("subscribe", sub=99, patterns=["*"], options=PLENTY)
        self.auditor.request("unsubscribe", sub=99)
        for channel, _, *life in answer["positions"]:
            if channel in self.settings:
                self.truth.learn(channel, life[0] if life else None)

    def read(self, channel):
        """What there is of a channel, oldest first, and the newest sequence."""
        pattern = [f"{channel}/*"]
        self.auditor.corr += 1
        self.auditor.send("subscribe", corr=self.auditor.corr, sub=98, patterns=pattern,
                          options={**PLENTY, "until": "now", "view": "durable"}, **{"from": "oldest"})
        events, ends = [], {}
        while True:
            message = self.auditor.wait(lambda message: message.get("sub") == 98 or message["op"] == "error", "a reading")
            demand(message["op"] != "error", "a reading is refused:", message)
            ends = message.get("ends") or ends
            events += message.get("events", [])
            if message["op"] == "ended":
                last = ends.get(channel, 0)
                return events, last[0] if isinstance(last, list) else last

    def audit(self):
        """See what nobody has told: events whose publisher did not hear where they are."""
        for channel in self.settings:
            epoch = self.truth.current(channel)
            events, last = self.read(channel)
            epoch.last = max(epoch.last, last)
            for event in events:
                self.truth.seen(epoch, event["seq"], event["path"], tuple(event["payload"][:3]))

    def save_cursor(self, name, places):
        positions = [[channel, *(place if isinstance(place, list) else [place])] for channel, place in places.items()]
        self.request("cursor", name=name, positions=positions)

    # --- what is done -----------------------------------------------------------------------------------

    def step_all(self):
        for peer in (*self.publishers, *self.subscribers):
            peer.step()

    def pump(self, seconds=0.0):
        poller = zmq.Poller()
        for peer in (*self.publishers, *self.subscribers):
            if not getattr(peer, "is_deaf", False):
                poller.register(peer.peer.client.socket, zmq.POLLIN)
        poller.poll(seconds * 1000)
        self.step_all()

    def pump_until(self, condition, what, deadline=DEADLINE):
        end = time.monotonic() + deadline
        while not condition():
            demand(time.monotonic() < end, "not in time:", what() if callable(what) else what)
            self.pump(0.05)

    def settle(self):
        """Until every batch is answered. Who refuses publishers must go on reading."""
        self.pump_until(lambda: not any(p.waiting for p in self.publishers), "the answers to publishers")

    def do_publish(self):
        publisher = self.random.choice(self.publishers)
        if len(publisher.waiting) < IN_FLIGHT:
            publisher.publish(self.random.choice((1, 1, 5, 30)))

    def do_burst(self):
        for _ in range(10):
            self.do_publish()
            self.pump(0.001)

    def do_subscribe(self):
        if len(self.subscribers) < 8:
            self.subscribers.append(Subscriber(self))
            self.tell("subscribe", self.subscribers[-1].account)

    def do_cut(self):
        if self.subscribers:
            self.random.choice(self.subscribers).cut()
        self.random.choice(self.publishers).connect()
        self.tell("cut")

    def do_deaf(self):
        for subscriber in self.subscribers:
            subscriber.is_deaf = self.random.random() < 0.3

    def do_grant(self):
        for subscriber in self.subscribers:
            if self.random.random() < 0.5:
                subscriber.grant()

    def do_trim(self):
        channel = self.random.choice(self.channels)
        if self.is_calm:
            return
        self.settle()
        self.truth.losing.add(channel)
        how = self.random.choice(({"keep": 5}, {"before": max(self.truth.current(channel).last, 1)}))
        self.request("channel", action="trim", name=channel, settings=how)
        self.tell("trim", channel, how)

    def do_remove(self):
        channel = self.random.choice(self.channels)
        if self.is_calm:
            return
        self.settle()
        self.audit()
        self.learn_lives()  # who lags hears of the life that ends now only after the next one has begun
        while not self.is_removed(channel):  # not while events are written to it
            self.pump(0.01)
        self.add_channel(channel)
        self.learn_lives()

    def is_removed(self, channel):
        try:
            self.request("channel", action="rm", name=channel)
        except Failure as failure:
            demand(failure.code == "again", "a channel is not removed:", failure)
            return False
        return True

    def do_restart(self):
        if self.is_calm:
            return
        self.pump()
        self.learn_lives()  # what the broker says of them may be read after the next one has begun
        is_kill = self.random.choice((True, False))
        self.tell("kill" if is_kill else "end")
        self.end(is_kill)
        self.broker.restart(*(a.format(dir=self.broker.dir) for a in ("--insecure", *self.arguments)))
        until(self.is_started, "the ports of the broker")
        self.begin()
        for peer in (*self.subscribers, *self.publishers):
            peer.cut() if isinstance(peer, Subscriber) else peer.connect()

    def is_started(self):
        """Not while another program on this machine has one of its ports."""
        self.broker.log.clear()
        try:
            return self.broker.start()
        except AssertionError as error:
            demand("Address already in use" in str(error), error)
            return False

    def end(self, is_kill):
        if is_kill:
            self.broker.kill()
        else:
            self.broker.signal(signal.SIGTERM)
            end = time.monotonic() + DEADLINE
            while self.broker.process.poll() is None:
                demand(time.monotonic() < end, "the broker does not end")
                self.pump(0.02)
        for subscriber in self.subscribers:  # what had left it is there all the same
            subscriber.is_deaf = False
        self.pump()
        self.auditor.close()
        if os.path.exists(self.broker.ports_file):
            os.unlink(self.broker.ports_file)  # which tells when the next one is ready

    def begin(self):
        """Connect, and find out what the start has left of the channels that were there before."""
        self.auditor = Client(self.broker, name="auditor")
        for channel, settings in self.settings.items():
            if settings["store"] == "memory":
                self.add_again(channel, settings)
                self.truth.begin(channel)
            else:
                events, last = self.read(channel)
                self.truth.begin(channel, last)
                for event in events:
                    self.truth.seen(self.truth.current(channel), event["seq"], event["path"], tuple(event["payload"][:3]))
        self.learn_lives()

    # --- the story --------------------------------------------------------------------------------------

    def run(self):
        self.broker.start()
        self.begin()
        for channel in self.channels:
            self.add_channel(channel)
        self.learn_lives()
        self.commands = [Command(self) for _ in range(self.random.choice((0, 1, 1, 2)))]
        self.publishers = [Publisher(self, index) for index in range(self.random.choice((1, 2)))]
        for _ in range(self.random.choice((1, 3))):
            self.do_subscribe()
        actions = (self.do_publish,) * 12 + (self.do_burst,) * 4 + (self.do_grant,) * 4 + (
            self.do_subscribe, self.do_cut, self.do_deaf, self.do_deaf, self.do_trim, self.do_remove, self.do_restart)
        for _ in range(self.random.choice((40, 100))):
            self.random.choice(actions)()
            self.pump(self.random.choice((0, 0, 0.005)))
        self.finish()

    def finish(self):
        for subscriber in self.subscribers:
            subscriber.is_deaf = False
            subscriber.grant(PLENTY)
        self.settle()
        self.audit()
        self.pump_until(lambda: all(s.is_done() for s in self.subscribers), self.what_is_missing)
        for command in self.commands:
            self.pump_until(lambda command=command: not command.missing(),
                            lambda command=command: f"busbar sub {command.pattern} has not {command.missing()[:5]}")
        for subscriber in self.subscribers:
            account = subscriber.account
            try:
                demand(not self.is_calm or account.overflow != "slide" or not account.reasons, "a gap, and nothing was lost")
                account.judge()
            except Violation as violation:
                raise Violation(f"{violation}; {subscriber.peer.form}: {account}") from None
        if self.ttl_share == 0:
            for channel in self.channels:
                self.read_with_the_command(channel)

    def what_is_missing(self):
        return [f"{s.account.missing()[:5]} of {len(s.account.missing())}; goodbye {s.goodbye} ended {s.account.has_ended}: "
                f"{s.peer.form}: {s.account}" for s in self.subscribers if not s.is_done()]

    def read_with_the_command(self, channel):
        """`busbar sub --strict` from all until now: what a plain peer reads, and a gap only where events are taken out of the middle."""
        statuses = (0, 6) if "max_per_path" in self.settings[channel] else (0,)
        (read, last), before = self.read(channel), None
        while read != before or last < self.truth.current(channel).last:  # retention and a lazy log take their time
            before, (read, last) = read, self.read(channel)
        transport = self.random.choice(("tcp", "ipc"))
        ended = subprocess.run(
            [Settings.busbar, "sub", "-q", "-u", self.broker.door("listen", transport), "--from", "all", "--until", "now", "--strict",
             "--json", f"{channel}/*"], capture_output=True, text=True, timeout=DEADLINE, check=False, preexec_fn=child_setup())
        demand(ended.returncode in statuses, "busbar sub --strict ended with", ended.returncode, ended.stderr)
        lines = [json.loads(line) for line in ended.stdout.splitlines()]
        found = [(line["seq"], line["path"], line["payload"]) for line in lines if "seq" in line]
        expected = [(event["seq"], event["path"], event["payload"]) for event in read]
        if ended.returncode == 6:  # the first gap is the end, and comes before the events that lie in its range (PROTOCOL 7.4)
            gap = lines[-1]["gap"]
            demand(gap["reason"] == "trimmed", "busbar sub --strict found", gap)
            expected = [event for event in expected if event[0] < gap["from"]]
        demand(found == expected, "busbar sub read", len(found), "events of", channel, "and a plain peer", len(expected))

    def close(self):
        for peer in (*self.publishers, *self.subscribers):
            peer.peer.close()
        for command in self.commands:
            command.close()
        if self.auditor is not None:
            self.auditor.close()


class Controls(unittest.TestCase):
    """The judge itself: what keeps the promise passes, and each way to break it is found."""

    FIRST, SECOND = 100, 200  # lives of channel a

    def setUp(self):
        self.truth = Truth()
        self.truth.begin("a")
        self.truth.learn("a", self.FIRST)
        for sequence in range(1, 11):
            self.truth.taken("a", sequence, Event("a/x" if sequence % 2 else "a/y", (0, sequence, 0), False))

    def account(self, patterns=("a/*",), positions=(("a", 0, 100),), **options):
        account = Account(self.truth, list(patterns), **options)
        account.subscribed([list(position) for position in positions])
        return account

    @staticmethod
    def events(*sequences, life=0):
        return [{"path": "a/x" if n % 2 else "a/y", "seq": n, "payload": [life, n, 0, ""]} for n in sequences]

    def remove(self):
        """The channel is removed and made again, with three events."""
        self.truth.begin("a")
        self.truth.learn("a", self.SECOND)
        for sequence in (1, 2, 3):
            self.truth.taken("a", sequence, Event("a/x" if sequence % 2 else "a/y", (1, sequence, 0), False))

    def restart(self, last):
        """The log has kept the first events, and others got the sequences behind them."""
        self.truth.begin("a", last)
        self.truth.learn("a", self.SECOND)
        for sequence in (last + 1, last + 2):
            self.truth.taken("a", sequence, Event("a/x" if sequence % 2 else "a/y", (1, sequence, 0), False))

    def passes(self, account):
        self.assertEqual(account.missing(), [])
        account.judge()

    def fails(self, account):
        with self.assertRaises(Violation):
            demand(not account.missing(), "missing", account.missing())
            account.judge()

    def test_all_in_order(self):
        account = self.account()
        account.deliver([["a", 0, 6]], self.events(1, 2, 3, 4, 5, 6), None)
        self.fails(account)
        account.deliver([["a", 6, 10]], self.events(7, 8, 9, 10), None)
        self.passes(account)

    def test_only_what_matches(self):
        account = self.account(["a/x"])
        account.deliver([["a", 0, 9]], self.events(1, 3, 5, 7, 9), None)
        self.passes(account)
        account.deliver([["a", 9, 10]], [], None)
        self.passes(account)
        other = self.account(["a/x"])
        with self.assertRaises(Violation):
            other.deliver([["a", 0, 2]], self.events(1, 2), None)

    def test_an_event_that_is_left_out(self):
        account = self.account()
        account.deliver([["a", 0, 10]], self.events(1, 2, 3, 4, 5, 7, 8, 9, 10), None)
        self.fails(account)

    def test_an_event_that_comes_again_or_that_nobody_published(self):
        for sequences in ((1, 1), (2, 1), (1, 11)):
            with self.assertRaises(Violation):
                self.account().deliver([["a", 0, max(*sequences, 2)]], self.events(*sequences), None)

    def test_ranges_that_do_not_join(self):
        for ranges in ([["a", 1, 5]], [["a", 0, 5], ["a", 6, 10]], [["a", 0, 5], ["a", 4, 10]], [["a", 0, 0]]):
            with self.assertRaises(Violation):
                self.account().deliver(ranges, [], None)

    def test_gaps_count_what_was_lost(self):
        for count, judge in ((4, self.passes), (3, self.fails), (5, self.fails)):
            account = self.account()
            account.deliver([["a", 0, 6]], self.events(1, 2, 3, 4, 5, 6), None)
            if count <= 4:
                account.gaps([["a", 7, 10, count, "overflow"]])
            else:
                account.gaps([["a", 7, 11, count, "overflow"]])
            judge(account)

    def test_gaps_that_cannot_be(self):
        for gap in (["a", 2, 5, 4, "overflow"], ["a", 1, 0, 0, "overflow"], ["a", 1, 2, 3, "overflow"],
                    ["a", 1, 2, 2, "dropped_oldest"], ["a", 1, 2, None, "overflow"], ["a", 1, 2, None, "trimmed"],
                    ["a", 1, 2, 2, "restart"]):
            with self.assertRaises(Violation, msg=gap):
                self.account(overflow="slide").gaps([gap])

    def test_conflated_events_among_those_that_came(self):
        account = self.account(overflow="conflate")
        account.deliver([["a", 10, 10]], self.events(9, 10), [["a", 1, 10, 8, "conflated"]])
        self.passes(account)

    def test_a_place_in_a_removed_channel(self):
        account = self.account()
        account.deliver([["a", 0, 2]], self.events(1, 2), None)
        self.remove()
        self.fails(account)
        account.gaps([["a", 3, None, None, "restart", self.SECOND]])
        account.deliver([["a", 0, 3]], self.events(1, 2, 3, life=1), None)
        self.passes(account)

    def test_a_resumed_place_in_a_removed_channel(self):
        for gaps, judge in (([], self.fails), ([["a", 3, None, None, "restart"]], self.passes)):
            self.setUp()
            account = self.account()
            account.deliver([["a", 0, 2]], self.events(1, 2), None)
            self.remove()
            account.is_resumed = True
            account.subscribed([["a", 2 if not gaps else 0, self.SECOND]])
            if gaps:
                account.gaps(gaps)
                account.deliver([["a", 0, 3, self.SECOND]], self.events(1, 2, 3, life=1), None)
            judge(account)

    def test_a_resumed_place_that_a_restart_has_taken_back(self):
        for told in (8, 4):
            self.setUp()
            account = self.account(early=True)
            account.deliver([["a", 0, 8]], self.events(1, 2, 3, 4, 5, 6, 7, 8), None)
            self.restart(4)
            account.is_resumed = True
            account.subscribed([["a", told, self.SECOND]])
            self.fails(account)
            account.gaps([["a", 5, 8, None, "retracted"]])
            account.deliver([["a", 4, 6]], self.events(5, 6, life=1), None)
            self.passes(account)

    def test_a_resumed_place_that_the_log_has_kept(self):
        account = self.account()
        account.deliver([["a", 0, 4]], self.events(1, 2, 3, 4), None)
        self.restart(8)
        account.is_resumed = True
        account.subscribed([["a", 4, self.SECOND]])
        with self.assertRaises(Violation):
            account.subscribed([["a", 6, self.SECOND]])
        account = self.account(positions=[["a", 4, self.SECOND]])
        account.deliver([["a", 4, 10]], [*self.events(5, 6, 7, 8), *self.events(9, 10, life=1)], None)
        self.passes(account)

    def test_a_new_life_in_a_gap_that_counts(self):
        account = self.account()
        account.deliver([["a", 0, 8]], self.events(1, 2, 3, 4, 5, 6, 7, 8), None)
        self.truth.begin("a", 10)
        self.truth.learn("a", self.SECOND)
        for sequence in (11, 12):
            self.truth.taken("a", sequence, Event("a/x", (1, sequence, 0), False))
        with self.assertRaises(Violation):  # that life has begun behind the connection's end
            account.gaps([["a", 9, 12, 4, "overflow", self.SECOND]])
        account = self.account(positions=(("a", 8, self.FIRST),))
        account.stretches["a"].epoch = self.truth.current("a")
        account.gaps([["a", 9, 12, 4, "overflow", self.SECOND]])
        self.assertEqual(account.places, {"a": [12, self.SECOND]})

    def test_nothing_beyond_the_end(self):
        for is_gap in (True, False):
            account = self.account(until="now")
            account.limits["a"] = (self.truth.current("a"), 5)
            with self.assertRaises(Violation):
                account.deliver([] if is_gap else [["a", 0, 6]], [], [["a", 1, 6, 1, "overflow"]] if is_gap else None)
        account = self.account(until=5)
        account.deliver([["a", 0, 5]], self.events(1, 2, 3, 4, 5), None)
        account.ended("done")
        self.passes(account)

    def test_what_is_not_known_leaves_room(self):
        account = self.account()
        del self.truth.current("a").events[4]
        account.deliver([["a", 0, 8]], self.events(1, 2, 3, 5, 6, 7, 8), None)
        account.gaps([["a", 9, 10, 2, "overflow"]])
        self.passes(account)

    def test_what_was_refused_must_not_come(self):
        self.truth.refused[(0, 11, 0)] = "overflow"
        with self.assertRaises(Violation):
            self.account().deliver([["a", 0, 11]], self.events(11), None)


class Stories(unittest.TestCase):
    def tell_story(self, seed):
        world = World(seed)
        try:
            with world.broker.temporary:
                try:
                    world.run()
                    world.broker.stop()
                finally:
                    world.close()
                    if world.broker.process is not None:
                        world.broker.kill()
        except (AssertionError, Failure) as failure:
            self.fail(f"seed {seed}: {failure}\n{' '.join(world.arguments)}\n" + "\n".join(world.story[-40:]))
        return world

    def test_delivered_and_gaps_make_what_was_published(self):
        seed = Settings.seed if Settings.seed is not None else random.randrange(1 << 32)
        end = time.monotonic() + Settings.seconds
        n_stories = 0
        while n_stories == 0 or time.monotonic() < end:
            print(f"seed {seed + n_stories}")
            self.tell_story(seed + n_stories)
            n_stories += 1
        print(f"{n_stories} stories")


if __name__ == "__main__":
    unittest.main()
