//! Failpoints that do something, read from `POINT=ACTION[@PROBABILITY],…`.

use std::{str::FromStr, time::Duration};

use tokio::time::sleep;
use tracing::warn;

use super::Point;
use crate::rng::SharedRng;

/// Where the orders come from.
const VARIABLE: &str = "TOKENCACHE_FAILPOINTS";

/// What happens at the points.
#[derive(Debug)]
pub struct Failpoints {
    orders: Vec<Order>,
    rng: SharedRng,
}

/// What happens at a point, and how often.
#[derive(Clone, Debug, PartialEq)]
struct Order {
    point: Point,
    action: Action,
    probability: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// SIGKILL to itself.
    Kill,
    /// The flight stands still; the rest of the process does not.
    Pause(Duration),
}

impl Failpoints {
    /// Nothing happens.
    #[must_use]
    pub fn none() -> Self {
        Self { orders: vec![], rng: SharedRng::from_os() }
    }

    /// What the environment says.
    ///
    /// # Panics
    ///
    /// If it cannot be understood: a test that injected nothing would prove nothing.
    #[must_use]
    pub fn from_environment() -> Self {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        let orders = text.split(',').map(str::trim).filter(|order| !order.is_empty());
        let orders: Result<Vec<Order>, String> = orders.map(str::parse).collect();
        let orders = orders.unwrap_or_else(|wrong| panic!("{VARIABLE}: {wrong}"));
        if !orders.is_empty() {
            warn!(?orders, "this build fails on purpose");
        }
        Self { orders, ..Self::none() }
    }

    /// Comes to a point.
    pub async fn reach(&self, point: Point) {
        for order in self.orders.iter().filter(|order| order.point == point) {
            if !self.rng.with(|rng| rand::RngExt::random_bool(rng, order.probability)) {
                continue;
            }
            match order.action {
                Action::Kill => {
                    let own = rustix::process::getpid();
                    rustix::process::kill_process(own, rustix::process::Signal::KILL)
                        .expect("a process may kill itself");
                    // The signal is on its way.
                    std::future::pending::<()>().await;
                }
                Action::Pause(pause) => sleep(pause).await,
            }
        }
    }
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (point, rest) = text.split_once('=').ok_or_else(|| format!("`{text}` is not POINT=ACTION"))?;
        let point = Point::ALL.into_iter().find(|known| known.to_string() == point);
        let point =
            point.ok_or_else(|| format!("`{text}` names none of {}", Point::ALL.map(|p| p.to_string()).join(", ")))?;
        let (action, probability) = rest.split_once('@').unwrap_or((rest, "1"));
        let probability = probability.parse().ok().filter(|p| (0.0..=1.0).contains(p));
        let probability = probability.ok_or_else(|| format!("`{text}` has no probability between 0 and 1"))?;
        let action = match action.split_once(':') {
            None if action == "kill" => Action::Kill,
            Some(("pause", time)) => {
                Action::Pause(humantime::parse_duration(time).map_err(|error| format!("`{text}`: {error}"))?)
            }
            _ => return Err(format!("`{text}` says neither kill nor pause:DURATION")),
        };
        Ok(Self { point, action, probability })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_names_point_action_and_probability() {
        let order = |text: &str| text.parse::<Order>();
        let kill = Order { point: Point::AfterPost, action: Action::Kill, probability: 0.05 };
        assert_eq!(order("after-post=kill@0.05"), Ok(kill));
        let action = Action::Pause(Duration::from_secs(3));
        assert_eq!(order("before-commit=pause:3s"), Ok(Order { point: Point::BeforeCommit, action, probability: 1.0 }));
        for wrong in ["after-post", "nowhere=kill", "after-post=die", "after-post=kill@2", "after-post=pause:long"] {
            assert!(order(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flight_stands_still_at_its_point_alone() {
        let orders = vec!["before-commit=pause:3s".parse().expect("valid")];
        let failpoints = Failpoints { orders, ..Failpoints::none() };
        let begun = tokio::time::Instant::now();
        failpoints.reach(Point::AfterPost).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        failpoints.reach(Point::BeforeCommit).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
    }
}
