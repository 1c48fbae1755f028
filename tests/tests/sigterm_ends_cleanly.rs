//! SIGTERM and SIGINT: the broker unregisters, keeps what it has, and ends with exit code 0, soon.

use std::time::{Duration, Instant};

use corelane_tests::ports::Ports;
use corelane_tests::raw::{self, Connection, YesNameServer, code};
use corelane_tests::server::Server;
use corelane_tests::{Cluster, Options, eventually, new_dir};

const WITHIN: Duration = Duration::from_secs(30);

#[test]
fn it_unregisters_from_every_nameserver() {
    let (dir, ports) = (new_dir(), Ports::take());
    let nameservers = [ports.nameserver(), ports.second_nameserver()].map(YesNameServer::listen);
    let addresses = nameservers
        .each_ref()
        .map(|ns| ns.address().to_owned())
        .join(";");
    let mut broker = Server::broker("ends", &dir, ports.broker(0), &addresses);
    for nameserver in &nameservers {
        eventually("it registers", WITHIN, || {
            (!nameserver.asked(code::REGISTER_BROKER).is_empty()).then_some(())
        });
        let registered = &nameserver.asked(code::REGISTER_BROKER)[0];
        assert_eq!(registered["brokerName"], "ends-0");
        assert_eq!(
            registered["brokerAddr"],
            format!("127.0.0.1:{}", ports.broker(0))
        );
        assert!(nameserver.asked(code::UNREGISTER_BROKER).is_empty());
    }
    let status = broker.sigterm(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0), "{}", broker.log_end());
    for nameserver in &nameservers {
        let unregistered = nameserver.asked(code::UNREGISTER_BROKER);
        assert_eq!(unregistered.len(), 1, "{unregistered:?}");
        assert_eq!(unregistered[0]["brokerName"], "ends-0");
        assert_eq!(
            unregistered[0]["brokerAddr"],
            format!("127.0.0.1:{}", ports.broker(0))
        );
    }
}

/// NameServers that are away do not keep it from ending.
#[test]
fn it_ends_without_its_nameservers() {
    let (dir, ports) = (new_dir(), Ports::take());
    let mut broker = Server::broker(
        "alone",
        &dir,
        ports.broker(0),
        &format!("127.0.0.1:{}", ports.nameserver()),
    );
    let address = format!("127.0.0.1:{}", ports.broker(0));
    eventually("it listens", WITHIN, || Connection::open(&address).ok());
    let status = broker.sigterm(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{}", broker.log_end());
}

#[test]
fn it_ends_soon_with_connections_and_keeps_what_it_has() {
    let mut cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("kept", 1);
    let mut idle: Vec<Connection> = (0..50)
        .map(|_| Connection::open(&cluster.broker()).expect("a connection"))
        .collect();
    let mut connection = Connection::open(&cluster.broker()).expect("a connection");
    for i in 0..100 {
        let answer = connection
            .request(code::SEND, &raw::send_fields("kept", "0"), b"kept")
            .expect("an answer");
        assert_eq!(
            (answer.code, answer.ext["queueOffset"].as_str()),
            (0, i.to_string().as_str())
        );
    }
    let start = Instant::now();
    let status = cluster.sigterm(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0));
    println!("ended after {:?}", start.elapsed());
    assert!(
        idle.iter_mut()
            .all(|c| c.answer_or_end().is_ok_and(|answer| answer.is_none())),
        "connections are closed"
    );

    cluster.start_again();
    let fields = [("topic", "kept"), ("queueId", "0")];
    let answer = Connection::open(&cluster.broker())
        .and_then(|mut c| c.request(code::MAX_OFFSET, &fields, &[]))
        .expect("an answer");
    assert_eq!(answer.ext["offset"], "100");
}

#[test]
fn a_nameserver_alone_ends_too() {
    let (dir, ports) = (new_dir(), Ports::take());
    let mut nameserver = Server::nameserver("nameserver", &dir, ports.nameserver());
    let address = format!("127.0.0.1:{}", ports.nameserver());
    let _connection = eventually("it listens", WITHIN, || Connection::open(&address).ok());
    let status = nameserver.sigterm(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0), "{}", nameserver.log_end());
}
