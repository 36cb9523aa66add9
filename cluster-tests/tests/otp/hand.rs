//! A process that a test moves by hand.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use purlin::{
    Down, Ended, ExitReason, Interrupt, LinkDown, Name, Node, NodeEvent, Pid, RawContext, RawKind,
    Received, Untyped,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

static HAND: RawKind = RawKind::new("hand");

/// A message that tells its place among others.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Number(pub(crate) u64);

impl purlin::Message for Number {
    const NAME: &'static str = "otp.number";
    type Reply = u64;
}

/// A message of any size.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Bulk(#[serde(with = "serde_bytes")] pub(crate) Vec<u8>);

impl purlin::Message for Bulk {
    const NAME: &'static str = "otp.bulk";
    type Reply = ();
}

/// Something that a hand has taken from its mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Got {
    Number(u64),
    /// Of so many bytes.
    Bulk(usize),
    Down(Down),
    LinkDown(LinkDown),
    Exit {
        from: Pid,
        reason: ExitReason,
    },
    Node(NodeEvent),
}

impl From<Received> for Got {
    fn from(received: Received) -> Self {
        match received {
            Received::Message(message) => Self::message(message),
            Received::Down(down) => Self::Down(down),
            Received::LinkDown(link_down) => Self::LinkDown(link_down),
            Received::Exit { from, reason } => Self::Exit { from, reason },
            Received::Node(event) => Self::Node(event),
            other => panic!("{other:?}"),
        }
    }
}

impl Got {
    fn message(message: Untyped) -> Self {
        match message.take::<Number>() {
            Ok(number) => {
                let (Number(number), answer) = number.unwrap();
                answer.send(number);
                Self::Number(number)
            }
            Err(message) => Self::Bulk(message.take::<Bulk>().unwrap().unwrap().0.0.len()),
        }
    }
}

enum Order {
    Do(Box<dyn FnOnce(&mut RawContext) + Send>),
    End(ExitReason),
}

/// A raw process that does what a test orders, and hands it all it receives.
///
/// It answers every [`Number`] with the same. What it is ordered to do it does as itself: what it
/// sends then, it has sent.
pub(crate) struct Hand {
    pub(crate) pid: Pid,
    node: Node,
    orders: mpsc::UnboundedSender<Order>,
    got: mpsc::UnboundedReceiver<Got>,
}

impl Hand {
    pub(crate) fn start(node: &Node) -> Self {
        Self::begin(node, |_| {})
    }

    /// A hand whose relations are made before this returns.
    pub(crate) fn begin(node: &Node, begin: impl FnOnce(&mut RawContext)) -> Self {
        let (orders, mut ordered) = mpsc::unbounded_channel();
        let (tell, got) = mpsc::unbounded_channel();
        let body = |mut ctx: RawContext| {
            begin(&mut ctx);
            async move {
                loop {
                    match next_step(&mut ctx, &mut ordered).await {
                        Ok(Step::Order(Order::Do(order))) => order(&mut ctx),
                        Ok(Step::Order(Order::End(reason))) | Err(Ended(reason)) => {
                            return Err(Interrupt::exit(reason));
                        }
                        Ok(Step::Got(received)) => drop(tell.send(Got::from(received))),
                    }
                }
            }
        };
        let pid = node.runtime().spawn_raw(&HAND, body).unwrap();
        Self { pid, node: node.clone(), orders, got }
    }

    /// A hand with a name on its node.
    pub(crate) fn named(node: &Node, name: &str) -> Self {
        let hand = Self::start(node);
        node.runtime().register(Name::new(name).unwrap(), hand.pid).unwrap();
        hand
    }

    /// A hand that traps exits.
    pub(crate) fn trapping(node: &Node) -> Self {
        Self::begin(node, |ctx| ctx.trap_exits(true))
    }

    /// Has it do something when it comes to it.
    pub(crate) fn order(&self, order: impl FnOnce(&mut RawContext) + Send + 'static) {
        // The dead do nothing, and the test will see that.
        drop(self.orders.send(Order::Do(Box::new(order))));
    }

    /// Has it do something, and waits until it is done.
    pub(crate) async fn does<T: Send + 'static>(
        &self,
        order: impl FnOnce(&mut RawContext) -> T + Send + 'static,
    ) -> T {
        let (tell, told) = oneshot::channel();
        self.order(move |ctx| drop(tell.send(order(ctx))));
        bounded(told).await.expect("the hand lives")
    }

    /// Has it end by itself with this reason, when it comes to it.
    pub(crate) fn end(&self, reason: ExitReason) {
        drop(self.orders.send(Order::End(reason)));
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.node.runtime().is_alive(self.pid)
    }

    /// The next thing it receives, within a minute.
    pub(crate) async fn next(&mut self) -> Got {
        bounded(self.got.recv()).await.expect("the hand lives")
    }

    pub(crate) async fn down(&mut self) -> Down {
        match self.next().await {
            Got::Down(down) => down,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn link_down(&mut self) -> LinkDown {
        match self.next().await {
            Got::LinkDown(link_down) => link_down,
            other => panic!("{other:?}"),
        }
    }

    /// All that it has received and the test has not seen.
    pub(crate) fn rest(&mut self) -> Vec<Got> {
        std::iter::from_fn(|| self.got.try_recv().ok()).collect()
    }

    /// Whether it receives nothing for a while.
    pub(crate) async fn is_quiet(&mut self) -> bool {
        let next = tokio::time::timeout(Duration::from_secs(1), self.got.recv()).await;
        !matches!(next, Ok(Some(_)))
    }
}

enum Step {
    Order(Order),
    Got(Received),
}

/// Orders come before what is received.
async fn next_step(
    ctx: &mut RawContext,
    orders: &mut mpsc::UnboundedReceiver<Order>,
) -> Result<Step, Ended> {
    poll_fn(|cx| match orders.poll_recv(cx) {
        Poll::Ready(Some(order)) => Poll::Ready(Ok(Step::Order(order))),
        Poll::Ready(None) | Poll::Pending => {
            ctx.poll_receive(cx).map(|received| received.map(Step::Got))
        }
    })
    .await
}

/// Takes what lies in a mailbox, without waiting for it.
pub(crate) async fn take_now(ctx: &mut RawContext) -> Option<Got> {
    let taken = poll_fn(|cx| match ctx.poll_receive(cx) {
        Poll::Ready(received) => Poll::Ready(Some(received)),
        Poll::Pending => Poll::Ready(None),
    });
    taken.await.map(|received| received.unwrap().into())
}

/// Waits a minute at most.
pub(crate) async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), future).await.expect("something within a minute")
}

/// The reason that a process ends with, watched from a node from now on.
pub(crate) fn end_of(node: &Node, pid: Pid) -> impl Future<Output = ExitReason> + use<> {
    let mut watcher = Hand::begin(node, watching(pid));
    async move { watcher.down().await.reason }
}

/// Begins a hand that watches a process.
pub(crate) fn watching(pid: Pid) -> impl FnOnce(&mut RawContext) {
    move |ctx| {
        ctx.monitor(pid);
    }
}

pub(crate) fn other(word: &str) -> ExitReason {
    ExitReason::other(word)
}
