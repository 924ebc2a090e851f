//! The few words of rtnetlink that a namespace needs, see rtnetlink(7).
//!
//! The socket belongs to the namespace of the thread that opens it, and blocks: these run on threads of their own.

use std::io;

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::attachment::InterfaceUsage;
use crate::error::Error;

/// The loopback interface is the first one of every namespace.
const LOOPBACK: u32 = 1;

/// Sets the loopback interface of the calling thread's namespace up.
pub(super) fn raise_loopback() -> Result<(), Error> {
    let mut link = LinkMessage::default();
    link.header.index = LOOPBACK;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    let request = RouteNetlinkMessage::SetLink(link);
    ask(request, NLM_F_REQUEST | NLM_F_ACK, |_| {})
        .map_err(|source| Error::Netlink { operation: "set interface lo up", source })
}

/// Counters of the interfaces of the calling thread's namespace, loopback aside.
pub(crate) fn usage() -> Result<Vec<InterfaceUsage>, Error> {
    let mut found = Vec::new();
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    ask(request, NLM_F_REQUEST | NLM_F_DUMP, |answer| {
        if let RouteNetlinkMessage::NewLink(link) = answer
            && link.header.index != LOOPBACK
        {
            found.push(counters(&link));
        }
    })
    .map_err(|source| Error::Netlink { operation: "list interfaces", source })?;
    Ok(found)
}

fn counters(link: &LinkMessage) -> InterfaceUsage {
    let mut usage = InterfaceUsage::default();
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => usage.name.clone_from(name),
            LinkAttribute::Stats64(stats) => {
                usage.rx_bytes = stats.rx_bytes;
                usage.rx_packets = stats.rx_packets;
                usage.rx_errors = stats.rx_errors;
                usage.rx_dropped = stats.rx_dropped;
                usage.tx_bytes = stats.tx_bytes;
                usage.tx_packets = stats.tx_packets;
                usage.tx_errors = stats.tx_errors;
                usage.tx_dropped = stats.tx_dropped;
            }
            _ => {}
        }
    }
    usage
}

/// Sends one request and hands over what answers it, until the kernel says that this was all.
fn ask(
    request: RouteNetlinkMessage,
    flags: u16,
    mut answered: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = NetlinkMessage::from(request);
    message.header.flags = flags;
    message.header.sequence_number = 1;
    message.finalize();
    let mut buffer = vec![0; message.buffer_len()];
    message.serialize(&mut buffer);
    socket.send(&buffer, 0)?;
    loop {
        let (packet, _) = socket.recv_from_full()?;
        let mut rest = packet.as_slice();
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(answer) => answered(answer),
                _ => {}
            }
            // Messages are padded to four bytes, see netlink(7).
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}
