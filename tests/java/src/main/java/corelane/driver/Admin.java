package corelane.driver;

import com.alibaba.fastjson2.JSONArray;
import com.alibaba.fastjson2.JSONObject;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Set;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.MessageRequestMode;
import org.apache.rocketmq.remoting.protocol.body.ClusterInfo;
import org.apache.rocketmq.remoting.protocol.body.Connection;
import org.apache.rocketmq.remoting.protocol.body.ConsumeMessageDirectlyResult;
import org.apache.rocketmq.remoting.protocol.body.ConsumerRunningInfo;
import org.apache.rocketmq.remoting.protocol.route.BrokerData;
import org.apache.rocketmq.remoting.protocol.route.QueueData;
import org.apache.rocketmq.remoting.protocol.route.TopicRouteData;
import org.apache.rocketmq.remoting.protocol.subscription.GroupRetryPolicy;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;
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
        String group = verb.getString("group");
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
            case "producer_connections":
                JSONArray producers = new JSONArray();
                for (Connection c : client().examineProducerConnectionInfo(group, topic).getConnectionSet()) {
                    producers.add(c.getClientId());
                }
                return out.fluentPut("clients", producers);
            case "set_topic":
                for (Object address : verb.getJSONArray("brokers")) {
                    TopicConfig config =
                        new TopicConfig(topic, verb.getIntValue("read"), verb.getIntValue("write"), verb.getIntValue("perm", 6));
                    config.setOrder(verb.getBooleanValue("order"));
                    JSONObject attributes = verb.getJSONObject("attributes");
                    if (attributes != null) {
                        config.setAttributes(new LinkedHashMap<>());
                        attributes.forEach((k, v) -> config.getAttributes().put(k, (String) v));
                    }
                    client().createAndUpdateTopicConfig((String) address, config);
                }
                return out;
            case "topic":
                TopicConfig config = client().examineTopicConfig(verb.getString("broker"), topic);
                return out.fluentPut("read", config.getReadQueueNums()).fluentPut("write", config.getWriteQueueNums())
                    .fluentPut("perm", config.getPerm()).fluentPut("attributes", config.getAttributes());
            case "set_group":
                for (Object address : verb.getJSONArray("brokers")) {
                    SubscriptionGroupConfig g = new SubscriptionGroupConfig();
                    g.setGroupName(group);
                    g.setRetryMaxTimes(verb.getIntValue("retry_max_times", 16));
                    g.setRetryQueueNums(verb.getIntValue("retry_queues", 1));
                    g.setConsumeEnable(verb.getBooleanValue("consume", true));
                    g.setConsumeBroadcastEnable(verb.getBooleanValue("broadcast", true));
                    g.setNotifyConsumerIdsChangedEnable(verb.getBooleanValue("notify", true));
                    g.setBrokerId(verb.getLongValue("broker_id"));
                    g.setWhichBrokerWhenConsumeSlowly(verb.getLongValue("slow_broker_id", 1));
                    if (verb.containsKey("attributes")) {
                        verb.getJSONObject("attributes").forEach((k, v) -> g.getAttributes().put(k, (String) v));
                    }
                    if (verb.containsKey("retry_policy")) {
                        g.setGroupRetryPolicy(verb.getObject("retry_policy", GroupRetryPolicy.class));
                    }
                    client().createAndUpdateSubscriptionGroupConfig((String) address, g);
                }
                return out;
            case "group":
                SubscriptionGroupConfig found = client().examineSubscriptionGroupConfig(verb.getString("broker"), group);
                return found == null ? out : out.fluentPut("retry_max_times", found.getRetryMaxTimes())
                    .fluentPut("retry_queues", found.getRetryQueueNums()).fluentPut("consume", found.isConsumeEnable())
                    .fluentPut("broadcast", found.isConsumeBroadcastEnable())
                    .fluentPut("notify", found.isNotifyConsumerIdsChangedEnable()).fluentPut("broker_id", found.getBrokerId())
                    .fluentPut("slow_broker_id", found.getWhichBrokerWhenConsumeSlowly())
                    .fluentPut("retry_policy", found.getGroupRetryPolicy()).fluentPut("attributes", found.getAttributes());
            case "groups":
                return out.fluentPut("groups",
                    client().getAllSubscriptionGroup(verb.getString("broker"), 5000).getSubscriptionGroupTable().keySet());
            case "delete_group":
                for (Object address : verb.getJSONArray("brokers")) {
                    client().deleteSubscriptionGroup((String) address, group, true);
                }
                return out;
            case "groups_of_topic": return out.fluentPut("groups", client().queryTopicConsumeByWho(topic).getGroupList());
            case "topics_of_group": return out.fluentPut("topics", client().queryTopicsByConsumer(group).getTopicList());
            case "forbid":
                for (Object address : verb.getJSONArray("brokers")) {
                    client().updateAndGetGroupReadForbidden((String) address, group, topic, verb.getBooleanValue("readable"));
                }
                return out;
            case "request_mode":
                for (Object address : verb.getJSONArray("brokers")) {
                    client().setMessageRequestMode((String) address, topic, group, MessageRequestMode.valueOf(verb.getString("mode")),
                        verb.getIntValue("share"), 5000);
                }
                return out;
            case "resume_half": return out.fluentPut("resumed", client().resumeCheckHalfMessage(topic, verb.getString("message_id")));
            case "running_info":
                ConsumerRunningInfo running = client().getConsumerRunningInfo(group, verb.getString("client"), false);
                JSONArray assigned = new JSONArray();
                running.getMqTable().keySet().forEach(q -> assigned.add(Messages.queue(q).fluentPut("topic", q.getTopic())));
                JSONArray subscribed = new JSONArray();
                running.getSubscriptionSet().forEach(d -> subscribed.add(d.getTopic() + " " + d.getSubString()));
                return out.fluentPut("queues", assigned).fluentPut("subscriptions", subscribed)
                    .fluentPut("properties", running.getProperties());
            case "consume_directly":
                ConsumeMessageDirectlyResult result =
                    client().consumeMessageDirectly(group, verb.getString("client"), topic, verb.getString("message_id"));
                return out.fluentPut("result", String.valueOf(result.getConsumeResult())).fluentPut("orderly", result.isOrder());
            case "mqadmin": return out.fluentPut("output", mqadmin(verb.getJSONArray("args").toList(String.class).toArray(new String[0])));
            default:
                JSONObject answer = Queries.run(client(), verb);
                if (answer == null) {
                    throw new IllegalArgumentException("no verb " + verb.getString("do"));
                }
                return answer;
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
