//! Several brokers register with several NameServers; clients get along when one of either is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_tests::ports::Ports;
use corelane_tests::server::Server;
use corelane_tests::turn::Turn;
use corelane_tests::{
    Client, Consumer, Language, Message, Mode, eventually, in_java_and_go, ledger, new_dir, raw,
};

in_java_and_go!(clients_get_along_without_one_of_each);

const WITHIN: Duration = Duration::from_secs(60);

fn wait_masters(nameserver: &str, count: usize) -> BTreeMap<String, String> {
    eventually(
        &format!("{nameserver} knows {count} brokers"),
        WITHIN,
        || Some(raw::masters(nameserver)).filter(|masters| masters.len() == count),
    )
}

fn clients_get_along_without_one_of_each(language: Language) {
    let _turn = Turn::shared();
    let (dir, ports) = (new_dir(), Ports::take());
    let addresses =
        [ports.nameserver(), ports.second_nameserver()].map(|port| format!("127.0.0.1:{port}"));
    let mut first = Server::nameserver("first", &dir, ports.nameserver());
    let _second = Server::nameserver("second", &dir, ports.second_nameserver());
    let nameservers = addresses.join(";");
    let _stays = Server::broker("stays", &dir, ports.broker(0), &nameservers);
    let mut leaves = Server::broker("leaves", &dir, ports.broker(1), &nameservers);
    let masters = addresses.each_ref().map(|address| wait_masters(address, 2));
    assert_eq!(masters[0], masters[1], "both NameServers know the same");

    for (name, address) in &masters[0] {
        let response = raw::create_topic(address, "both", 2).expect("an answer");
        assert_eq!(response.code, 0, "{name}: {}", response.remark);
    }
    for address in &addresses {
        eventually("the route is known", WITHIN, || {
            (raw::route(address, "both").len() == 2).then_some(())
        });
    }
    let mut client = Client::start_with(language, &nameservers, &dir, &[]);
    client.producer("producer");
    client.consumer(&Consumer::new("group", "both"));
    let messages = |name: &str| -> Vec<Message> {
        (0..20)
            .map(|i| Message::new("both", format!("{name} {i}")))
            .collect()
    };
    let sent = client.send("producer", Mode::Sync, &messages("all there"));
    let used: std::collections::BTreeSet<&str> =
        sent.iter().map(|s| s.place.broker.as_str()).collect();
    assert_eq!(
        used.into_iter().collect::<Vec<_>>(),
        ["leaves-0", "stays-0"]
    );
    ledger::equal(&messages("all there"), &client.receive("group", 20, WITHIN));

    first.kill9();
    let sent = client.send("producer", Mode::Sync, &messages("one NameServer"));
    client.receive("group", 40, WITHIN);
    ledger::nothing_lost(&sent, &client.received("group"));
    // A client that comes now has to find the NameServer that is left. The Java client does not start when it asks the
    // other one first, and has to be started again.
    let mut late = Client::start_with(language, &nameservers, &dir, &[]);
    let mut attempts = 0;
    let name = eventually("a new consumer starts", WITHIN, || {
        attempts += 1;
        let name = format!("late-{attempts}");
        late.try_consumer(&Consumer::new("late", "both").name(&name))
            .is_ok()
            .then_some(name)
    });
    late.receive(&name, 40, WITHIN);

    leaves.kill9();
    wait_masters(&addresses[1], 1);
    assert_eq!(
        raw::route(&addresses[1], "both")
            .into_keys()
            .collect::<Vec<_>>(),
        ["stays-0"]
    );
    leaves.start_again();
    wait_masters(&addresses[1], 2);
    first.start_again();
    wait_masters(&addresses[0], 2);
    eventually("its topics come back with a broker", WITHIN, || {
        (raw::route(&addresses[0], "both").len() == 2).then_some(())
    });
}

/// A NameServer that never heard of a broker's end takes it for alive until its connection ends.
#[test]
fn a_brokers_route_goes_with_its_connection() {
    let (dir, ports) = (new_dir(), Ports::take());
    let address = format!("127.0.0.1:{}", ports.nameserver());
    let _nameserver = Server::nameserver("nameserver", &dir, ports.nameserver());
    let mut broker = Server::broker("comes-and-goes", &dir, ports.broker(0), &address);
    wait_masters(&address, 1);
    broker.kill9();
    wait_masters(&address, 0);
    broker.start_again();
    wait_masters(&address, 1);
    let status = broker.sigterm(Duration::from_secs(10));
    assert!(status.success(), "{status}");
    wait_masters(&address, 0);
}
