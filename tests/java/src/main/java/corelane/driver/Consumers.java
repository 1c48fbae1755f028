package corelane.driver;

import com.alibaba.fastjson2.JSONObject;
import java.nio.charset.StandardCharsets;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.zip.CRC32;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.common.UtilAll;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.heartbeat.MessageModel;

/** Consumers by name. Each message that one receives is an event "message". */
final class Consumers {
    /** Longer bodies are shown by their length, their checksum and their beginning. */
    private static final int BODY_SHOWN = 1024;

    private final String nameservers;
    private final Map<String, Runnable> shutdowns = new ConcurrentHashMap<>();

    Consumers(String nameservers) {
        this.nameservers = nameservers;
    }

    /** A push consumer: "model" is clustering or broadcasting, "from" is first, last or timestamp ("timestamp_ms", whole seconds). */
    JSONObject push(JSONObject verb) throws Exception {
        String name = verb.getString("name");
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(verb.getString("group"));
        consumer.setNamesrvAddr(nameservers);
        consumer.setInstanceName(name);
        consumer.setPollNameServerInterval(1000);
        consumer.setHeartbeatBrokerInterval(1000);
        consumer.setPersistConsumerOffsetInterval(1000);
        consumer.setMessageModel(verb.getString("model").equals("broadcasting") ? MessageModel.BROADCASTING : MessageModel.CLUSTERING);
        switch (verb.getString("from")) {
            case "first": consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET); break;
            case "last": consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET); break;
            case "timestamp":
                consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_TIMESTAMP);
                consumer.setConsumeTimestamp(UtilAll.timeMillisToHumanString3(verb.getLongValue("timestamp_ms")));
                break;
            default: throw new IllegalArgumentException("from " + verb.getString("from"));
        }
        // One thread: messages of a queue are shown in the order in which they came.
        consumer.setConsumeThreadMin(1);
        consumer.setConsumeThreadMax(1);
        consumer.subscribe(verb.getString("topic"), verb.getString("expression"));
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt m : messages) {
                received(name, m, context.getMessageQueue().getBrokerName());
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        shutdowns.put(name, consumer::shutdown);
        return new JSONObject();
    }

    /** A pull consumer that is given all queues of the topic, from "first", "last" or "timestamp" ("timestamp_ms") on. */
    JSONObject litePull(JSONObject verb) throws Exception {
        String name = verb.getString("name");
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(verb.getString("group"));
        consumer.setNamesrvAddr(nameservers);
        consumer.setInstanceName(name);
        consumer.start();
        Collection<MessageQueue> queues = consumer.fetchMessageQueues(verb.getString("topic"));
        consumer.assign(queues);
        for (MessageQueue q : queues) {
            switch (verb.getString("from")) {
                case "first": consumer.seekToBegin(q); break;
                case "last": consumer.seekToEnd(q); break;
                case "timestamp": consumer.seek(q, consumer.offsetForTimestamp(q, verb.getLongValue("timestamp_ms"))); break;
                default: throw new IllegalArgumentException("from " + verb.getString("from"));
            }
        }
        boolean[] stopped = {false};
        Thread thread = new Thread(() -> {
            while (!stopped[0]) {
                List<MessageExt> messages = consumer.poll(200);
                for (MessageExt m : messages) {
                    received(name, m, m.getBrokerName());
                }
            }
        }, name);
        thread.start();
        shutdowns.put(name, () -> {
            stopped[0] = true;
            try {
                thread.join();
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
            consumer.shutdown();
        });
        return new JSONObject();
    }

    boolean shutdown(String name) {
        Runnable shutdown = shutdowns.remove(name);
        if (shutdown != null) {
            shutdown.run();
        }
        return shutdown != null;
    }

    void shutdownAll() {
        shutdowns.keySet().forEach(this::shutdown);
    }

    private static void received(String consumer, MessageExt m, String broker) {
        byte[] body = m.getBody();
        CRC32 crc = new CRC32();
        crc.update(body);
        Driver.emit(new JSONObject().fluentPut("event", "message").fluentPut("consumer", consumer).fluentPut("topic", m.getTopic())
            .fluentPut("broker", broker).fluentPut("queue", m.getQueueId()).fluentPut("offset", m.getQueueOffset())
            .fluentPut("message_id", m.getMsgId()).fluentPut("tag", m.getTags()).fluentPut("keys", m.getKeys())
            .fluentPut("properties", m.getProperties()).fluentPut("reconsume_times", m.getReconsumeTimes())
            .fluentPut("born_ms", m.getBornTimestamp()).fluentPut("stored_ms", m.getStoreTimestamp())
            .fluentPut("body", new String(body, 0, Math.min(body.length, BODY_SHOWN), StandardCharsets.UTF_8))
            .fluentPut("body_bytes", body.length).fluentPut("body_crc", crc.getValue()));
    }
}
