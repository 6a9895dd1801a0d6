/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/conn.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "bus/signal.h"

uint64_t bb_conn_lend(struct bb_bus *bus, int *ret_fd)
{
    bb_link_lend(&bus->link, true);
    *ret_fd = bus->link.fd;
    return bus->n_links;
}

void bb_conn_take_back(struct bb_bus *bus, uint64_t n_link)
{
    if (bus->n_links == n_link) {
        bb_link_lend(&bus->link, false);
    }
}

/* A new link for each attempt, to the next url: nothing of an older connection is left in it. */
static int open_link(struct bb_bus *bus)
{
    const char *url = bus->url;
    bus->n_links++;
    bus->url += strlen(url) + 1;
    if (*bus->url == 0) {
        bus->url = bus->urls;
    }
    int r = bb_link_open(&bus->link, url, bb_now_ms(), bus->conn.config.open_ms);
    if (r < 0) {
        bb_bus_note(bus, r, "%s", bus->link.text);
    }
    return r;
}

static void send_hello(struct bb_bus *bus)
{
    struct bb_buf options = BB_BUF_INIT;
    bb_mp_write_map(&options, bus->name[0] != 0 ? 2 : 1);
    bb_mp_write_str(&options, bb_slice_str("heartbeat"));
    bb_mp_write_uint(&options, bus->options.heartbeat_ms);
    if (bus->name[0] != 0) {
        bb_mp_write_str(&options, bb_slice_str("name"));
        bb_mp_write_str(&options, bb_slice_str(bus->name));
    }
    struct bb_msg msg = {
        .type = BB_MSG_HELLO,
        .corr = ++bus->last_corr,
        .version = BB_PROTOCOL_VERSION,
        .client = bb_slice(bus->client, sizeof(bus->client)),
        .options = bb_buf_slice(&options),
    };
    if (options.error < 0 || bb_conn_send(bus, &msg) < 0) {
        bb_conn_drop(bus, BB_ENOMEM, "hello could not be sent");
    }
    bb_buf_fini(&options);
}

static void break_connection(struct bb_bus *bus)
{
    bb_link_close(&bus->link);
    bus->pending |= BB_PENDING_BROKEN;
}

static void perform(struct bb_bus *bus, unsigned actions)
{
    if ((actions & BB_CONN_DO_BREAK) != 0) {
        break_connection(bus);
    }
    if ((actions & BB_CONN_DO_OPEN) != 0 && open_link(bus) < 0) {
        perform(bus, bb_conn_lost(&bus->conn, bb_now_ms()));
    }
    if ((actions & BB_CONN_DO_HELLO) != 0) {
        send_hello(bus);
    }
    if ((actions & BB_CONN_DO_PING) != 0) {
        struct bb_msg msg = {.type = BB_MSG_PING};
        bb_conn_post(bus, &msg);
    }
}

void bb_conn_opened(struct bb_bus *bus)
{
    perform(bus, bb_conn_connected(&bus->conn, bb_now_ms()));
}

void bb_conn_break(struct bb_bus *bus)
{
    perform(bus, bb_conn_lost(&bus->conn, bb_now_ms()));
    bb_bus_wake(bus); /* a step does what is pending, and sets the timer for the next attempt */
}

void bb_conn_drop(struct bb_bus *bus, int error, const char *text)
{
    bb_bus_note(bus, error, "%s", text);
    bb_conn_break(bus);
}

void bb_conn_end(struct bb_bus *bus, int error, const char *text)
{
    bb_bus_note(bus, error, "%s", text);
    bus->error = error;
    perform(bus, bb_conn_close(&bus->conn));
    bus->pending |= BB_PENDING_ENDED;
    bb_bus_wake(bus);
}

void bb_conn_tick_now(struct bb_bus *bus)
{
    static const char *const late[] = {
        [BB_CONN_HELLO_SENT] = "the broker did not say welcome in time",
        [BB_CONN_READY] = "the broker has fallen silent",
    };
    enum bb_conn_state state = bus->conn.state;
    unsigned actions = bb_conn_tick(&bus->conn, bb_now_ms());
    if ((actions & BB_CONN_DO_BREAK) != 0 && state < BB_COUNT(late) && late[state] != NULL) {
        bb_bus_note(bus, BB_ECONNECT, "%s", late[state]);
    }
    perform(bus, actions);
}

/* --- sending ------------------------------------------------------------------------------------ */

int bb_conn_send(struct bb_bus *bus, const struct bb_msg *msg)
{
    bb_buf_reset(&bus->scratch);
    bb_msg_encode(&bus->scratch, msg);
    return bus->scratch.error < 0 ? bus->scratch.error
                                  : bb_link_send(&bus->link, bb_buf_slice(&bus->scratch));
}

void bb_conn_post(struct bb_bus *bus, const struct bb_msg *msg)
{
    if (bb_conn_send(bus, msg) == BB_ENOMEM) {
        bb_conn_drop(bus, BB_ENOMEM, "no memory for what is to be sent");
    }
}

void bb_conn_send_batches(struct bb_bus *bus)
{
    struct bb_batch *batch;
    if (!bb_bus_is_ready(bus)) {
        return;
    }
    while ((batch = bb_outbox_next(&bus->outbox)) != NULL && bb_link_add_batch(&bus->link, batch) == 0) {
        bb_outbox_sent(&bus->outbox);
    }
    bb_link_flush(&bus->link);
}
