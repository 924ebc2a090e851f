//! Corten's own service: images from archives and into them, and the check of layers.

use futures_util::stream::{self, BoxStream, StreamExt};
use image::{Digest, Images, NewImport};
use tokio::sync::mpsc;
use tonic::{Code, Request, Response, Status, Streaming, async_trait};
use tracing::Instrument;

use crate::wire::corten::export_part::Part as ExportPart;
use crate::wire::corten::import_answer::Answer as ImportAnswer;
use crate::wire::corten::import_part::Part as ImportPart;
use crate::wire::{corten, cri};
use crate::{convert, status, telemetry};

/// How many messages wait for the client.
const QUEUE: usize = 4;

type Stream<T> = BoxStream<'static, Result<T, Status>>;
type Sender<T> = mpsc::Sender<Result<T, Status>>;

/// Archives over the image crate.
#[derive(Debug)]
pub(super) struct Archives {
    images: Images,
}

impl Archives {
    pub(super) fn new(images: Images) -> Self {
        Self { images }
    }
}

#[async_trait]
impl corten::archives_server::Archives for Archives {
    type ImportStream = Stream<corten::ImportAnswer>;
    type ExportStream = Stream<corten::ExportPart>;
    type CheckStream = Stream<corten::CheckedLayer>;

    async fn import(
        &self,
        request: Request<Streaming<corten::ImportPart>>,
    ) -> Result<Response<Self::ImportStream>, Status> {
        let (images, parts) = (self.images.clone(), request.into_inner());
        Ok(answers(async move |sender| import(&images, parts, sender).await))
    }

    async fn export(
        &self,
        request: Request<corten::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let (images, request) = (self.images.clone(), request.into_inner());
        let name = name(&request.image)?;
        telemetry::about(&name);
        Ok(answers(async move |sender| export(&images, &name, &request.known, sender).await))
    }

    async fn tag(
        &self,
        request: Request<corten::TagRequest>,
    ) -> Result<Response<corten::TagResponse>, Status> {
        let request = request.into_inner();
        let name = name(&request.image)?;
        telemetry::about(&name);
        self.images.tag(&name, &request.tag).await.map_err(status::image)?;
        Ok(Response::new(corten::TagResponse {}))
    }

    async fn check(
        &self,
        request: Request<corten::CheckRequest>,
    ) -> Result<Response<Self::CheckStream>, Status> {
        let (images, repair) = (self.images.clone(), request.into_inner().repair);
        Ok(answers(async move |sender| check(&images, repair, sender).await))
    }
}

/// Answers with what `work` sends, and with its error last. It goes on when the client goes, until it sends.
fn answers<T: Send + 'static, F: Future<Output = Result<(), Status>> + Send + 'static>(
    work: impl FnOnce(Sender<T>) -> F,
) -> Response<Stream<T>> {
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    let work = work(sender.clone());
    let told = async move {
        if let Err(status) = work.await {
            // The call itself was told, and counted, when its answer began.
            if status.code() != Code::Cancelled {
                tracing::warn!(code = ?status.code(), error = status.message(), "the answer ends early");
            }
            // A client that is gone asks no more.
            drop(sender.send(Err(status)).await);
        }
    };
    tokio::spawn(told.in_current_span());
    Response::new(stream::poll_fn(move |context| receiver.poll_recv(context)).boxed())
}

async fn import(
    images: &Images,
    mut parts: Streaming<corten::ImportPart>,
    answers: Sender<corten::ImportAnswer>,
) -> Result<(), Status> {
    let answer = |answer| Ok(corten::ImportAnswer { answer: Some(answer) });
    let first = parts.message().await?.and_then(|part| part.part);
    let Some(ImportPart::Begin(begin)) = first else {
        return Err(Status::invalid_argument("an import begins with its beginning"));
    };
    let names =
        begin.names.iter().map(|name| name.parse().map_err(status::image)).collect::<Result<_, _>>()?;
    let index = Some(begin.index).filter(|index| !index.is_empty());
    let index = index.map(|index| index.parse()).transpose();
    let index = index.map_err(|e| Status::invalid_argument(format!("index: {e}")))?;
    let (manifest, config) = (begin.manifest.into(), begin.config.into());
    let new = NewImport { names, with_digests: begin.with_digests, index, manifest, config };
    let mut import = images.import(new).await.map_err(status::image)?;
    let layers = import.wanted().into_iter().map(number).collect();
    let gone = |_| Status::cancelled("the client is gone");
    answers.send(answer(ImportAnswer::Wanted(corten::ImportWanted { layers }))).await.map_err(gone)?;
    while let Some(part) = parts.message().await? {
        let taken = match part.part {
            Some(ImportPart::Layer(index)) => import.layer(index as usize).await,
            Some(ImportPart::Piece(piece)) => import.write(piece.into()).await,
            Some(ImportPart::Begin(_)) | None => {
                return Err(Status::invalid_argument("an import begins once"));
            }
        };
        taken.map_err(status::image)?;
    }
    let id = import.finish().await.map_err(status::image)?;
    answers.send(answer(ImportAnswer::Id(id.to_string()))).await.map_err(gone)
}

async fn export(
    images: &Images,
    name: &str,
    known: &[String],
    parts: Sender<corten::ExportPart>,
) -> Result<(), Status> {
    let send = async |part| {
        let sent = parts.send(Ok(corten::ExportPart { part: Some(part) })).await;
        sent.map_err(|_| Status::cancelled("the client is gone"))
    };
    let export = images.export(name).await.map_err(status::image)?;
    let layers = export.layers.iter();
    let layers = layers
        .map(|layer| corten::ExportedLayer { digest: layer.digest.to_string(), bytes: layer.bytes })
        .collect::<Vec<_>>();
    let digests: Vec<String> = layers.iter().map(|layer| layer.digest.clone()).collect();
    send(ExportPart::Begin(corten::ExportBegin {
        id: export.id.to_string(),
        tags: export.tags.clone(),
        config: export.config.to_vec(),
        layers,
        others: export.others.iter().map(ToString::to_string).collect(),
        artifact: export.artifact.as_ref().map(|manifest| manifest.to_vec()).unwrap_or_default(),
    }))
    .await?;
    for (index, digest) in digests.iter().enumerate() {
        if known.contains(digest) || digests[..index].contains(digest) {
            continue;
        }
        let Some(mut pieces) = export.archive(index) else { continue };
        send(ExportPart::Layer(number(index))).await?;
        while let Some(piece) = pieces.recv().await {
            send(ExportPart::Piece(piece.map_err(status::image)?.to_vec())).await?;
        }
    }
    Ok(())
}

async fn check(images: &Images, repair: bool, answers: Sender<corten::CheckedLayer>) -> Result<(), Status> {
    images.collect().await.map_err(status::image)?;
    for layer in images.layers() {
        let Some(checked) = images.check(&layer).await.map_err(status::image)? else { continue };
        let damage = checked.found.as_ref().err().map(|e| pod::chain(e)).unwrap_or_default();
        let unrepaired =
            if repair && !damage.is_empty() { mend(images, &layer).await } else { String::new() };
        let diff_id = checked.diff_id.to_string();
        let answer = corten::CheckedLayer { diff_id, images: checked.images, damage, unrepaired };
        answers.send(Ok(answer)).await.map_err(|_| Status::cancelled("the client is gone"))?;
    }
    Ok(())
}

/// Repairs a layer, or says why not.
async fn mend(images: &Images, layer: &Digest) -> String {
    images.repair(layer).await.err().map(|e| pod::chain(&e)).unwrap_or_default()
}

fn name(image: &str) -> Result<String, Status> {
    let image = cri::ImageSpec { image: image.to_owned(), ..Default::default() };
    Ok(convert::image::parse(Some(image))?.0)
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
