//! The services of the socket: each call is converted, given to the domain, and its answer converted.

mod archives;
mod events;
mod image;
mod numbers;
mod pulls;
mod runtime;
mod streaming;
mod streams;
mod verbose;

use ::pod::Pods;
use tonic::Status;
use tonic::service::{Routes, RoutesBuilder};

use crate::reload::Current;
use crate::server::MESSAGE_BYTES;
use crate::stream::Urls;
use crate::wire::corten::archives_server::ArchivesServer;
use crate::wire::corten::pulls_server::PullsServer;
use crate::wire::cri::image_service_server::ImageServiceServer;
use crate::wire::cri::runtime_service_server::RuntimeServiceServer;
use crate::{convert, telemetry};

/// All services, for [`crate::server::Listener::serve`].
pub(crate) fn routes(pods: &Pods, current: &Current, urls: Urls) -> Routes {
    let images = image::ImageService::new(pods.clone(), current.get().handlers());
    let runtime = runtime::RuntimeService::new(pods.clone(), current.clone(), urls);
    let mut routes = RoutesBuilder::default();
    routes
        .add_service(
            RuntimeServiceServer::new(runtime)
                .max_decoding_message_size(MESSAGE_BYTES)
                .max_encoding_message_size(MESSAGE_BYTES),
        )
        .add_service(
            ImageServiceServer::new(images)
                .max_decoding_message_size(MESSAGE_BYTES)
                .max_encoding_message_size(MESSAGE_BYTES),
        )
        .add_service(
            ArchivesServer::new(archives::Archives::new(pods.images().clone()))
                .max_decoding_message_size(MESSAGE_BYTES)
                .max_encoding_message_size(MESSAGE_BYTES),
        )
        .add_service(PullsServer::new(pulls::Pulls::new(pods.images().clone())));
    routes.routes()
}

/// The id in a request, which the log says the call is about.
fn id(field: &'static str, id: String) -> Result<String, Status> {
    let id = convert::id(field, id)?;
    telemetry::about(&id);
    Ok(id)
}
