//! ImageService.

use image::Images;
use pod::Pods;
use tonic::{Request, Response, Status, async_trait};

use super::streams::{self, Chunks};
use super::verbose;
use crate::wire::cri;
use crate::{convert, status, telemetry};

type Answer<T> = Result<Response<T>, Status>;

/// ImageService over the image crate.
#[derive(Debug)]
pub(super) struct ImageService {
    pods: Pods,
    images: Images,
    handlers: Vec<String>,
}

impl ImageService {
    pub(super) fn new(pods: Pods, handlers: Vec<String>) -> Self {
        Self { images: pods.images().clone(), pods, handlers }
    }

    /// The name of the image that a request is about, when the handler that it is for exists.
    fn name(&self, image: Option<cri::ImageSpec>) -> Result<String, Status> {
        let (name, handler) = convert::image::parse(image)?;
        if !self.handlers.contains(&handler) {
            return Err(status::pod(pod::Error::UnknownHandler { name: handler }));
        }
        telemetry::about(&name);
        Ok(name)
    }

    fn listed(&self, filter: Option<cri::ImageFilter>) -> Result<Vec<cri::Image>, Status> {
        let found = match convert::image::filter(filter)? {
            Some(name) => self.images.find(&name).into_iter().collect(),
            None => self.images.list(),
        };
        Ok(found.iter().map(|image| convert::image::show(image)).collect())
    }
}

#[async_trait]
impl cri::image_service_server::ImageService for ImageService {
    async fn pull_image(&self, request: Request<cri::PullImageRequest>) -> Answer<cri::PullImageResponse> {
        let request = request.into_inner();
        let name = self.name(request.image)?;
        let credentials = convert::image::credentials(request.auth);
        let id = self.images.pull(&name, credentials).await.map_err(status::image)?;
        // What a pull read layers into is no use until the next one.
        tokio::task::spawn_blocking(runtime::sys::memory::trim);
        Ok(Response::new(cri::PullImageResponse { image_ref: id.to_string() }))
    }

    async fn image_status(
        &self,
        request: Request<cri::ImageStatusRequest>,
    ) -> Answer<cri::ImageStatusResponse> {
        let request = request.into_inner();
        let name = self.name(request.image)?;
        let found = self.images.find(&name);
        let info = match &found {
            Some(image) if request.verbose => {
                let configuration = self.images.configuration(&image.id).await.map_err(status::image)?;
                verbose::map(&convert::image::info(image, &configuration))
            }
            _ => Default::default(),
        };
        let image = found.as_deref().map(convert::image::show);
        Ok(Response::new(cri::ImageStatusResponse { image, info }))
    }

    async fn list_images(&self, request: Request<cri::ListImagesRequest>) -> Answer<cri::ListImagesResponse> {
        let images = self.listed(request.into_inner().filter)?;
        Ok(Response::new(cri::ListImagesResponse { images }))
    }

    async fn remove_image(
        &self,
        request: Request<cri::RemoveImageRequest>,
    ) -> Answer<cri::RemoveImageResponse> {
        let name = self.name(request.into_inner().image)?;
        self.images.remove(&name).await.map_err(status::image)?;
        Ok(Response::new(cri::RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<cri::ImageFsInfoRequest>) -> Answer<cri::ImageFsInfoResponse> {
        let usage = self.images.usage().await.map_err(status::image)?;
        let pods = self.pods.clone();
        let images = usage.mountpoint.clone();
        let layers = tokio::task::spawn_blocking(move || pods.writable_layers(&images)).await;
        Ok(Response::new(cri::ImageFsInfoResponse {
            image_filesystems: vec![convert::image::usage(usage)],
            container_filesystems: layers.iter().map(convert::stats::disk).collect(),
        }))
    }

    type StreamImagesStream = Chunks<cri::StreamImagesResponse>;

    async fn stream_images(
        &self,
        request: Request<cri::StreamImagesRequest>,
    ) -> Answer<Self::StreamImagesStream> {
        let images = self.listed(request.into_inner().filter)?;
        Ok(streams::chunks(images, |images| cri::StreamImagesResponse { images }))
    }
}
