package corelane.driver;

import com.alibaba.fastjson2.JSONArray;
import com.alibaba.fastjson2.JSONObject;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Set;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.admin.OffsetWrapper;
import org.apache.rocketmq.remoting.protocol.body.ClusterInfo;
import org.apache.rocketmq.remoting.protocol.body.Connection;
import org.apache.rocketmq.remoting.protocol.route.BrokerData;
import org.apache.rocketmq.remoting.protocol.route.QueueData;
import org.apache.rocketmq.remoting.protocol.route.TopicRouteData;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/** What an operator asks for, through the admin client and through the mqadmin command. */
final class Admin {
    private final String nameservers;
    private DefaultMQAdminExt client;

    Admin(String nameservers) {
        this.nameservers = nameservers;
    }

    JSONObject run(JSONObject verb) throws Exception {
        JSONObject out = new JSONObject();
        String topic = verb.getString("topic");
        switch (verb.getString("do")) {
            case "create_topic":
                for (Object address : verb.getJSONArray("brokers")) {
                    int queues = verb.getIntValue("queue_count");
                    client().createAndUpdateTopicConfig((String) address, new TopicConfig(topic, queues, queues, 6));
                }
                return out;
            case "delete_topic":
                client().deleteTopicInBroker(Set.copyOf(verb.getJSONArray("brokers").toList(String.class)), topic);
                client().deleteTopicInNameServer(Set.of(nameservers.split(";")), topic);
                return out;
            case "topics": return out.fluentPut("topics", client().fetchAllTopicList().getTopicList());
            case "route": return route(client().examineTopicRouteInfo(topic));
            case "cluster":
                ClusterInfo info = client().examineBrokerClusterInfo();
                JSONObject brokers = new JSONObject();
                info.getBrokerAddrTable().forEach((name, data) -> brokers.put(name, data.getBrokerAddrs().get(0L)));
                return out.fluentPut("clusters", info.getClusterAddrTable().keySet()).fluentPut("brokers", brokers);
            case "connections":
                JSONArray clients = new JSONArray();
                for (Connection c : client().examineConsumerConnectionInfo(verb.getString("group")).getConnectionSet()) {
                    clients.add(c.getClientId());
                }
                return out.fluentPut("clients", clients);
            case "progress": return progress(client().examineConsumeStats(verb.getString("group"), topic).getOffsetTable());
            case "offsets":
                JSONArray queues = new JSONArray();
                for (MessageQueue q : client().getDefaultMQAdminExtImpl().getMqClientInstance().getMQAdminImpl()
                        .fetchSubscribeMessageQueues(topic)) {
                    queues.add(at(q).fluentPut("min", client().minOffset(q)).fluentPut("max", client().maxOffset(q))
                        .fluentPut("at", client().searchOffset(q, verb.getLongValue("timestamp_ms"))));
                }
                return out.fluentPut("queues", queues);
            case "mqadmin": return out.fluentPut("output", mqadmin(verb.getJSONArray("args").toList(String.class).toArray(new String[0])));
            default: throw new IllegalArgumentException("no verb " + verb.getString("do"));
        }
    }

    void shutdown() {
        if (client != null) {
            client.shutdown();
        }
    }

    private DefaultMQAdminExt client() throws Exception {
        if (client == null) {
            DefaultMQAdminExt starting = new DefaultMQAdminExt();
            starting.setNamesrvAddr(nameservers);
            starting.setInstanceName("admin");
            starting.start();
            client = starting;
        }
        return client;
    }

    private static JSONObject route(TopicRouteData route) {
        JSONObject brokers = new JSONObject();
        for (BrokerData b : route.getBrokerDatas()) {
            brokers.put(b.getBrokerName(), b.getBrokerAddrs().get(0L));
        }
        JSONObject queues = new JSONObject();
        for (QueueData q : route.getQueueDatas()) {
            queues.put(q.getBrokerName(), q.getWriteQueueNums());
        }
        return new JSONObject().fluentPut("brokers", brokers).fluentPut("queues", queues);
    }

    private static JSONObject progress(Map<MessageQueue, OffsetWrapper> offsets) {
        JSONArray queues = new JSONArray();
        offsets.forEach((q, o) -> queues.add(at(q).fluentPut("committed", o.getConsumerOffset()).fluentPut("end", o.getBrokerOffset())));
        return new JSONObject().fluentPut("queues", queues);
    }

    private static JSONObject at(MessageQueue q) {
        return new JSONObject().fluentPut("broker", q.getBrokerName()).fluentPut("queue", q.getQueueId());
    }

    /** Runs the command in this process; what it prints is the result. */
    private static String mqadmin(String[] args) {
        ByteArrayOutputStream printed = new ByteArrayOutputStream();
        PrintStream before = System.out;
        System.setOut(new PrintStream(printed, true, StandardCharsets.UTF_8));
        try {
            MQAdminStartup.main0(args, null);
        } finally {
            System.setOut(before);
        }
        return printed.toString(StandardCharsets.UTF_8);
    }
}
