package corelane.driver;

import com.alibaba.fastjson2.JSONArray;
import com.alibaba.fastjson2.JSONObject;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.exception.RemotingSendRequestException;

/** Consumers that ask for messages, by name. Each message that a lite one receives is an event "message". */
@SuppressWarnings("deprecation") // The older pull consumer is asked for, too.
final class PullConsumers {
    private final String nameservers;
    private final Map<String, DefaultLitePullConsumer> lites = new ConcurrentHashMap<>();
    private final Map<String, Thread> pollers = new ConcurrentHashMap<>();
    private final Map<String, org.apache.rocketmq.client.consumer.DefaultMQPullConsumer> pulls = new ConcurrentHashMap<>();

    PullConsumers(String nameservers) {
        this.nameservers = nameservers;
    }

    JSONObject run(JSONObject verb) throws Exception {
        String name = verb.getString("name");
        String topic = verb.getString("topic");
        MessageQueue queue = verb.containsKey("queue") ? Messages.queue(topic, verb.getJSONObject("queue")) : null;
        JSONObject out = new JSONObject();
        switch (verb.getString("do")) {
            case "lite_pull": return assignAll(verb);
            case "lite_start": start(verb); return out;
            case "lite_poll":
                List<MessageExt> messages = lites.get(name).poll(verb.getLongValue("timeout_ms"));
                messages.forEach(m -> received(name, m));
                return out.fluentPut("count", messages.size());
            case "lite_seek": lites.get(name).seek(queue, verb.getLongValue("offset")); return out;
            case "lite_commit": lites.get(name).commit(); return out;
            case "lite_committed": return out.fluentPut("offset", lites.get(name).committed(queue));
            case "lite_assignment":
                JSONArray queues = new JSONArray();
                lites.get(name).assignment().forEach(q -> queues.add(Messages.queue(q)));
                return out.fluentPut("queues", queues);
            case "pull": return pull(verb, queue);
            default: throw new IllegalArgumentException("no verb " + verb.getString("do"));
        }
    }

    boolean shutdown(String name) {
        DefaultLitePullConsumer consumer = lites.remove(name);
        Thread poller = pollers.remove(name);
        if (poller != null) {
            try {
                poller.join();
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        }
        if (consumer != null) {
            consumer.shutdown();
        }
        return consumer != null;
    }

    void shutdownAll() {
        lites.keySet().forEach(this::shutdown);
        pulls.values().forEach(p -> p.shutdown());
    }

    /** With a "topic" it subscribes, else it waits for "lite_seek" to be given queues. */
    private DefaultLitePullConsumer start(JSONObject verb) throws Exception {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(verb.getString("group"));
        consumer.setNamesrvAddr(nameservers);
        consumer.setInstanceName(verb.getString("name"));
        consumer.setPollNameServerInterval(1000);
        consumer.setHeartbeatBrokerInterval(1000);
        consumer.setMqClientApiTimeout(20_000);
        consumer.setPersistConsumerOffsetInterval(1000);
        consumer.setAutoCommit(verb.getBooleanValue("auto_commit", true));
        if (verb.getBooleanValue("subscribe")) {
            consumer.subscribe(verb.getString("topic"), verb.getString("expression"));
        }
        consumer.start();
        if (verb.getBooleanValue("assign")) {
            consumer.assign(consumer.fetchMessageQueues(verb.getString("topic")));
        }
        lites.put(verb.getString("name"), consumer);
        return consumer;
    }

    /** One that is given all queues of the topic, from "first", "last" or "timestamp" ("timestamp_ms") on, and polls by itself. */
    private JSONObject assignAll(JSONObject verb) throws Exception {
        String name = verb.getString("name");
        DefaultLitePullConsumer consumer = start(verb);
        Collection<MessageQueue> queues = consumer.fetchMessageQueues(verb.getString("topic"));
        consumer.assign(queues);
        for (MessageQueue q : queues) {
            seek(consumer, q, verb);
        }
        Thread thread = new Thread(() -> {
            while (lites.containsKey(name)) {
                consumer.poll(200).forEach(m -> received(name, m));
            }
        }, name);
        pollers.put(name, thread);
        thread.start();
        return new JSONObject();
    }

    /**
     * A seek interrupts the client's task for the queue. Interrupted in a request, the task closes the connection below
     * every other request, which may be one of this seek: like a user, it tries again.
     */
    private static void seek(DefaultLitePullConsumer consumer, MessageQueue q, JSONObject verb) throws Exception {
        for (int left = 20; ; left--) {
            try {
                switch (verb.getString("from")) {
                    case "first": consumer.seekToBegin(q); return;
                    case "last": consumer.seekToEnd(q); return;
                    case "timestamp": consumer.seek(q, consumer.offsetForTimestamp(q, verb.getLongValue("timestamp_ms"))); return;
                    default: throw new IllegalArgumentException("from " + verb.getString("from"));
                }
            } catch (MQClientException e) {
                if (left == 0 || !(e.getCause() instanceof RemotingSendRequestException)) {
                    throw e;
                }
                Thread.sleep(50);
            }
        }
    }

    /** One pull of the older consumer, with its status; with "wait" it waits where nothing is found. */
    private JSONObject pull(JSONObject verb, MessageQueue queue) throws Exception {
        String group = verb.getString("group");
        org.apache.rocketmq.client.consumer.DefaultMQPullConsumer consumer = pulls.get(group);
        if (consumer == null) {
            consumer = new org.apache.rocketmq.client.consumer.DefaultMQPullConsumer(group);
            consumer.setNamesrvAddr(nameservers);
            consumer.setInstanceName(group);
            consumer.setHeartbeatBrokerInterval(1000);
            consumer.start();
            pulls.put(group, consumer);
        }
        String expression = verb.containsKey("expression") ? verb.getString("expression") : "*";
        long offset = verb.getLongValue("offset");
        int count = verb.getIntValue("count", 32);
        PullResult result = verb.getBooleanValue("wait") ? consumer.pullBlockIfNotFound(queue, expression, offset, count)
            : verb.getBooleanValue("sql") ? consumer.pull(queue, MessageSelector.bySql(expression), offset, count)
            : consumer.pull(queue, expression, offset, count);
        JSONArray keys = new JSONArray();
        if (result.getMsgFoundList() != null) {
            result.getMsgFoundList().forEach(m -> keys.add(m.getKeys()));
        }
        return new JSONObject().fluentPut("status", result.getPullStatus().name()).fluentPut("next", result.getNextBeginOffset())
            .fluentPut("min", result.getMinOffset()).fluentPut("max", result.getMaxOffset()).fluentPut("keys", keys);
    }

    private static void received(String name, MessageExt m) {
        Driver.emit(Messages.shown(m).fluentPut("event", "message").fluentPut("consumer", name));
    }
}
