//! Corten's own service: how far pulls are.

use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::{self, BoxStream, StreamExt};
use image::{Images, Phase, Progress};
use tokio::sync::watch;
use tonic::{Request, Response, Status, async_trait};

use crate::telemetry;
use crate::wire::{corten, cri};

/// No client needs to see more often how far a pull is.
const PAUSE: Duration = Duration::from_millis(50);

/// Pulls over the image crate.
#[derive(Debug)]
pub(super) struct Pulls {
    images: Images,
}

impl Pulls {
    pub(super) fn new(images: Images) -> Self {
        Self { images }
    }
}

#[async_trait]
impl corten::pulls_server::Pulls for Pulls {
    type WatchStream = BoxStream<'static, Result<corten::PullProgress, Status>>;

    async fn watch(
        &self,
        request: Request<corten::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let image = cri::ImageSpec { image: request.into_inner().reference, ..Default::default() };
        let (name, _) = crate::convert::image::parse(Some(image))?;
        telemetry::about(&name);
        Ok(Response::new(follow(self.images.watch(&name)).map(Ok).boxed()))
    }
}

/// Every state that is seen, to the end of the pull. A pull that ended before is not the one that is waited for.
fn follow(mut progress: watch::Receiver<Progress>) -> impl Stream<Item = corten::PullProgress> {
    let over = |phase: Phase| matches!(phase, Phase::Done | Phase::Failed);
    if !over(progress.borrow().phase) {
        progress.mark_changed();
    }
    stream::unfold((progress, false), move |(mut progress, ended)| async move {
        if ended || progress.changed().await.is_err() {
            return None;
        }
        let (shown, ended) = {
            let now = progress.borrow_and_update();
            (show(&now), over(now.phase))
        };
        if !ended {
            tokio::time::sleep(PAUSE).await;
        }
        Some((shown, (progress, ended)))
    })
}

fn show(progress: &Progress) -> corten::PullProgress {
    let phase = match progress.phase {
        Phase::Waiting => corten::PullPhase::Waiting,
        Phase::Resolving => corten::PullPhase::Resolving,
        Phase::Fetching => corten::PullPhase::Fetching,
        Phase::Committing => corten::PullPhase::Committing,
        Phase::Done => corten::PullPhase::Done,
        Phase::Failed => corten::PullPhase::Failed,
    };
    let layers = progress.layers.iter().map(|layer| corten::LayerProgress {
        digest: layer.digest.to_string(),
        total: layer.total_bytes,
        done: layer.done_bytes,
        unpacked: layer.done,
    });
    corten::PullProgress { phase: phase.into(), layers: layers.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(phase: Phase) -> Progress {
        let mut progress = Progress::default();
        progress.phase = phase;
        progress
    }

    async fn phase(
        states: &mut (impl Stream<Item = corten::PullProgress> + Unpin),
    ) -> Option<corten::PullPhase> {
        states.next().await.map(|state| state.phase())
    }

    #[tokio::test]
    async fn a_pull_is_followed_to_its_end() {
        let (sender, receiver) = watch::channel(at(Phase::Waiting));
        let mut states = Box::pin(follow(receiver));
        assert_eq!(phase(&mut states).await, Some(corten::PullPhase::Waiting));
        sender.send_replace(at(Phase::Fetching));
        assert_eq!(phase(&mut states).await, Some(corten::PullPhase::Fetching));
        sender.send_replace(at(Phase::Done));
        assert_eq!(phase(&mut states).await, Some(corten::PullPhase::Done));
        assert_eq!(phase(&mut states).await, None);
    }

    #[tokio::test]
    async fn the_end_of_an_earlier_pull_is_not_shown() {
        let (sender, receiver) = watch::channel(at(Phase::Failed));
        let mut states = Box::pin(follow(receiver));
        sender.send_replace(at(Phase::Resolving));
        assert_eq!(phase(&mut states).await, Some(corten::PullPhase::Resolving));
        drop(sender);
        assert_eq!(phase(&mut states).await, None);
    }
}
