//! How long a remote is given, and how often it is asked again.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Cause, RemoteError};

/// The longest pause between two tries.
const MAX_DELAY: Duration = Duration::from_secs(5);

/// How patient a remote is with its server.
#[derive(Debug, Clone)]
pub struct RequestLimits {
    /// The longest wait for a connection.
    pub connect: Duration,
    /// The longest time without progress, all tries included. A single request is given up after
    /// half of it, so that another can be tried.
    pub idle: Duration,
    /// How often a request is tried again before its failure is reported.
    pub retries: u32,
    /// The pause before the first retry; it doubles with each further one.
    pub first_delay: Duration,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            idle: Self::idle_of(Duration::from_secs(30)),
            retries: 5,
            first_delay: Duration::from_millis(100),
        }
    }
}

impl RequestLimits {
    /// How long to be patient where a program waits for `patience` at most: what the kernel reads
    /// ahead and gets no answer to, it asks for once more.
    pub fn idle_of(patience: Duration) -> Duration {
        patience / 2
    }

    /// How long one request may make no progress.
    pub(super) fn per_request(&self) -> Duration {
        self.idle / 2
    }
}

/// Tries `request` until it succeeds, fails for a reason that will not pass, or the limits are
/// reached.
pub(super) async fn persist<T, F>(
    limits: &RequestLimits,
    stalled: impl Fn() -> RemoteError,
    mut request: impl FnMut() -> F,
) -> Result<T, RemoteError>
where
    F: Future<Output = Result<T, RemoteError>>,
{
    let mut retry = Retry::new(limits);
    let deadline = retry.deadline();
    loop {
        match retry.attempt(deadline, &stalled, request()).await {
            Ok(value) => return Ok(value),
            Err(error) => retry.pause(deadline, error).await?,
        }
    }
}

/// Counts failures in a row and spaces the tries.
#[derive(Debug)]
pub(super) struct Retry {
    limits: RequestLimits,
    failures: u32,
}

impl Retry {
    pub(super) fn new(limits: &RequestLimits) -> Self {
        Self { limits: limits.clone(), failures: 0 }
    }

    /// When waiting that begins now must end.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.limits.idle
    }

    /// Forgets earlier failures, since the server has shown that it works.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Runs one try within its share of the time.
    pub(super) async fn attempt<T>(
        &self,
        deadline: Instant,
        stalled: &impl Fn() -> RemoteError,
        request: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        let until = deadline.min(Instant::now() + self.limits.per_request());
        match timeout_at(until, request).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(stalled()),
        }
    }

    /// Waits before the next try, or gives `error` back if there is to be none.
    pub(super) async fn pause(
        &mut self,
        deadline: Instant,
        error: RemoteError,
    ) -> Result<(), RemoteError> {
        let delay = self.limits.first_delay * 2_u32.saturating_pow(self.failures.min(16));
        let wake = Instant::now() + delay.min(MAX_DELAY);
        let is_hopeless = error.cause != Cause::Unreachable;
        if is_hopeless || self.failures >= self.limits.retries || wake >= deadline {
            return Err(error);
        }
        self.failures += 1;
        sleep_until(wake).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn error(cause: Cause) -> RemoteError {
        RemoteError::new(cause, "get", "test", "because")
    }

    fn limits() -> RequestLimits {
        RequestLimits { retries: 3, first_delay: Duration::from_millis(1), ..Default::default() }
    }

    async fn tries_until_given_up(cause: Cause) -> u32 {
        let tries = Cell::new(0);
        let outcome: Result<(), _> = persist(
            &limits(),
            || error(Cause::Unreachable),
            || {
                tries.set(tries.get() + 1);
                std::future::ready(Err(error(cause)))
            },
        )
        .await;
        assert_eq!(outcome.unwrap_err().cause, cause);
        tries.get()
    }

    #[tokio::test]
    async fn trouble_is_retried_so_often_and_no_more() {
        assert_eq!(tries_until_given_up(Cause::Unreachable).await, 4);
    }

    #[tokio::test]
    async fn what_will_not_pass_is_not_retried() {
        assert_eq!(tries_until_given_up(Cause::Denied).await, 1);
        assert_eq!(tries_until_given_up(Cause::Missing).await, 1);
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline() {
        let limits = RequestLimits { idle: Duration::from_millis(30), ..limits() };
        let outcome: Result<(), _> =
            persist(&limits, || error(Cause::Unreachable), std::future::pending).await;
        assert_eq!(outcome.unwrap_err().cause, Cause::Unreachable);
    }
}
