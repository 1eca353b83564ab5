//! Connections that are kept between attempts, and die meanwhile. The receivers close when the next request is there, which
//! is what a close looks like from here when it crosses the request on its way.

use super::*;
use crate::deliver::receiver::{Parting, Received};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::Semaphore;

/// Attempts that share one client, and with it the connections.
struct Sender {
    client: Client,
    target: Target,
    event: Event,
}

impl Sender {
    fn to(receiver: &Receiver, body: impl Into<Bytes>) -> Sender {
        Sender {
            client: client(),
            target: Target::prepare(&spec(receiver.url()), &[], "shop").unwrap(),
            event: event(b"", body),
        }
    }

    async fn send(&self, number: u32) -> Answer {
        let attempt = Attempt {
            event: &self.event,
            number,
            now: now(),
            set: None,
            bodies: &crate::bodies::NONE,
        };
        self.target.send(&self.client, attempt).await
    }
}

/// Closes each connection at its second request, without an answer.
fn once(request: &Received) -> Reply {
    match request.nth {
        1 => Reply::Status(200),
        _ => Reply::Close,
    }
}

fn numbers(receiver: &mut Receiver) -> Vec<(String, u32)> {
    receiver
        .rest()
        .iter()
        .map(|request| {
            let attempt = request.header("x-hookstream-delivery-attempt");
            (attempt.to_owned(), request.nth)
        })
        .collect()
}

#[tokio::test]
async fn a_kept_connection_that_the_receiver_closed_costs_no_attempt() {
    let mut receiver = Receiver::start(once).await;
    let sender = Sender::to(&receiver, "x");
    for number in 1..=3 {
        let answer = sender.send(number).await;
        assert_eq!(answer.outcome, Outcome::Delivered { status: 200 });
        assert!(answer.timings.connect_us.is_some(), "on a new connection");
    }
    // Its own connection isn't kept; the one after it is the pool's.
    assert_eq!(
        numbers(&mut receiver),
        [("1", 1), ("2", 2), ("2", 1), ("3", 1)].map(|(attempt, nth)| (attempt.to_owned(), nth))
    );
}

#[tokio::test]
async fn a_reset_costs_no_attempt_either() {
    let mut receiver = Receiver::forgetful(Parting::Reset).await;
    let sender = Sender::to(&receiver, "x");
    for number in 1..=2 {
        let answer = sender.send(number).await;
        assert_eq!(answer.outcome, Outcome::Delivered { status: 200 });
    }
    assert_eq!(receiver.rest().len(), 2);
}

#[tokio::test]
async fn a_body_that_is_half_written_when_the_connection_dies_is_sent_again_whole() {
    let mut receiver = Receiver::forgetful(Parting::Reset).await;
    let mut sender = Sender::to(&receiver, "x");
    sender.send(1).await;
    // More than the sockets' buffers hold: it is still being written when the reset comes.
    let body: Vec<u8> = std::iter::repeat_n(b'y', 16 << 20)
        .chain(*b"\r\n\r\nx")
        .collect();
    sender.event.body = body.into();
    let answer = sender.send(2).await;
    assert_eq!(
        answer.outcome,
        Outcome::Delivered { status: 200 },
        "{:?}",
        answer.error
    );
    assert_eq!(receiver.rest().len(), 2);
}

#[tokio::test]
async fn once_a_byte_of_the_answer_has_come_the_attempt_has_failed() {
    let mut receiver = Receiver::forgetful(Parting::Half).await;
    let sender = Sender::to(&receiver, "x");
    sender.send(1).await;
    let answer = sender.send(2).await;
    assert_eq!(answer.outcome, Outcome::Unreachable);
    assert_eq!(receiver.rest().len(), 1, "nothing was sent again");
}

#[tokio::test]
async fn a_new_connection_that_is_closed_without_an_answer_is_not_tried_again() {
    let mut receiver = Receiver::always(Reply::Close).await;
    let answer = Sender::to(&receiver, "x").send(1).await;
    assert_eq!(answer.outcome, Outcome::Unreachable);
    assert_eq!(receiver.rest().len(), 1);
}

#[tokio::test]
async fn it_is_sent_once_more_and_not_more_often() {
    let requests = AtomicU32::new(0);
    let mut receiver = Receiver::start(move |_| {
        if requests.fetch_add(1, Ordering::Relaxed) == 0 {
            Reply::Status(200)
        } else {
            Reply::Close
        }
    })
    .await;
    let sender = Sender::to(&receiver, "x");
    sender.send(1).await;
    let answer = sender.send(2).await;
    assert_eq!(answer.outcome, Outcome::Unreachable);
    assert_eq!(
        answer.error.as_deref(),
        Some("the connection was closed before the answer")
    );
    assert_eq!(receiver.rest().len(), 3);
}

#[tokio::test]
async fn when_all_kept_connections_are_dead_the_next_attempt_still_arrives() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let mut receiver = Receiver::start(move |request| match request.nth {
        1 => Reply::Gate(held.clone()),
        _ => Reply::Close,
    })
    .await;
    let sender = Sender::to(&receiver, "x");
    let opening = async { tokio::join!(sender.send(1), sender.send(1), sender.send(1)) };
    let letting = async {
        for _ in 0..3 {
            receiver.next().await;
        }
        gate.add_permits(100);
    };
    tokio::join!(opening, letting);
    let answer = sender.send(2).await;
    assert_eq!(answer.outcome, Outcome::Delivered { status: 200 });
    assert_eq!(receiver.rest().len(), 2, "one dead connection was enough");
}

#[tokio::test]
async fn the_second_sending_has_no_more_time_than_the_attempt() {
    let mut receiver = Receiver::start(|request| {
        match (request.nth, request.header("x-hookstream-delivery-attempt")) {
            (1, "1") => Reply::Status(200),
            (1, _) => Reply::Hang,
            _ => Reply::Close,
        }
    })
    .await;
    let mut sender = Sender::to(&receiver, "x");
    sender.target.timeout = Duration::from_millis(300);
    sender.send(1).await;
    let answer = sender.send(2).await;
    assert_eq!(answer.outcome, Outcome::TimedOut);
    assert!(
        answer
            .timings
            .total_us
            .is_some_and(|total| total < 5_000_000)
    );
    assert_eq!(receiver.rest().len(), 3);
}
