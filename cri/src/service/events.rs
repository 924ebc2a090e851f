//! GetContainerEvents: the domain's events on the wire, for as long as the client listens.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt};
use image::Images;
use pod::Pods;
use pod::event::{Event, EventKind, Listener};
use pod::status::ContainerStatus;
use tonic::{Response, Status};

use super::runtime::Answer;
use crate::convert;
use crate::wire::cri;

/// Events as they come.
pub(super) type Events = BoxStream<'static, Result<cri::ContainerEventResponse, Status>>;

/// What happens from now on. A client that does not keep up is told so by the stream's end.
pub(super) fn get(pods: &Pods) -> Answer<Events> {
    let images = pods.images().clone();
    let events = stream::unfold(Some(pods.listen()), move |listener| next(listener, images.clone()));
    Ok(Response::new(events.boxed()))
}

async fn next(
    listener: Option<Listener>,
    images: Images,
) -> Option<(Result<cri::ContainerEventResponse, Status>, Option<Listener>)> {
    let mut listener = listener?;
    match listener.next().await {
        Ok(event) => Some((Ok(show(&*event?, &images)), Some(listener))),
        Err(missed) => Some((Err(Status::resource_exhausted(missed.to_string())), None)),
    }
}

fn show(event: &Event, images: &Images) -> cri::ContainerEventResponse {
    let kind = match event.kind {
        EventKind::Created => cri::ContainerEventType::ContainerCreatedEvent,
        EventKind::Started => cri::ContainerEventType::ContainerStartedEvent,
        EventKind::Stopped => cri::ContainerEventType::ContainerStoppedEvent,
        EventKind::Deleted => cri::ContainerEventType::ContainerDeletedEvent,
    };
    cri::ContainerEventResponse {
        container_id: event.id.clone(),
        container_event_type: kind.into(),
        created_at: event.at_ns,
        pod_sandbox_status: Some(convert::pod::status(&event.pod)),
        containers_statuses: statuses(&event.containers, images),
    }
}

/// The statuses of a pod's containers.
pub(super) fn statuses(containers: &[Arc<ContainerStatus>], images: &Images) -> Vec<cri::ContainerStatus> {
    let show = |container: &Arc<ContainerStatus>| {
        convert::container::status(container, images.find(&container.image_id).as_deref())
    };
    containers.iter().map(show).collect()
}
