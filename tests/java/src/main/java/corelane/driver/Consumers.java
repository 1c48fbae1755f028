package corelane.driver;

import com.alibaba.fastjson2.JSONArray;
import com.alibaba.fastjson2.JSONObject;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.impl.consumer.RebalanceImpl;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.UtilAll;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.heartbeat.MessageModel;

/**
 * Push consumers by name. Each message that one receives is an event "message", and does with it what the message's own
 * properties say: "fails" so many times, "works_ms" so long, is answered with "reply".
 */
final class Consumers {
    private final String nameservers;
    private final Producers producers;
    private final Map<String, DefaultMQPushConsumer> consumers = new ConcurrentHashMap<>();
    /** How many listeners of a group are at work on a queue. */
    private final Map<String, AtomicInteger> busy = new ConcurrentHashMap<>();

    Consumers(String nameservers, Producers producers) {
        this.nameservers = nameservers;
        this.producers = producers;
    }

    /**
     * Starts one: "model" is clustering or broadcasting, "from" is first, last or timestamp ("timestamp_ms", whole seconds).
     * May say "sql", "orderly", "threads", "max_reconsume", "retry_level", "client_rebalance", "strategy", "trace",
     * "trace_topic", "namespace", "namespace_v2", "replies_with" (a producer), "pull_batch", "consume_batch", and "threshold" of
     * messages of a queue that it has and does not pull beyond.
     */
    @SuppressWarnings("deprecation")
    JSONObject start(JSONObject verb) throws Exception {
        String name = verb.getString("name");
        DefaultMQPushConsumer consumer =
            new DefaultMQPushConsumer(verb.getString("group"), verb.getBooleanValue("trace"), verb.getString("trace_topic"));
        consumer.setNamesrvAddr(nameservers);
        consumer.setInstanceName(name);
        consumer.setPollNameServerInterval(1000);
        consumer.setHeartbeatBrokerInterval(1000);
        consumer.setMqClientApiTimeout(20_000);
        consumer.setPersistConsumerOffsetInterval(1000);
        // Without it a shutdown commits while listeners are at work, and what they consume comes again.
        consumer.setAwaitTerminationMillisWhenShutdown(5000);
        if (verb.containsKey("namespace")) {
            consumer.setNamespace(verb.getString("namespace"));
        }
        consumer.setNamespaceV2(verb.getString("namespace_v2"));
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
        // With one thread messages of a queue are shown in the order in which they came.
        consumer.setConsumeThreadMin(verb.getIntValue("threads", 1));
        consumer.setConsumeThreadMax(verb.getIntValue("threads", 1));
        consumer.setMaxReconsumeTimes(verb.getIntValue("max_reconsume", -1));
        consumer.setClientRebalance(verb.getBooleanValue("client_rebalance", true));
        consumer.setPullBatchSize(verb.getIntValue("pull_batch", 32));
        consumer.setConsumeMessageBatchMaxSize(verb.getIntValue("consume_batch", 1));
        consumer.setPullThresholdForQueue(verb.getIntValue("threshold", 1000));
        consumer.setPopInvisibleTime(5000);
        consumer.setSuspendCurrentQueueTimeMillis(200);
        if (verb.containsKey("strategy")) {
            consumer.setAllocateMessageQueueStrategy(Strategies.named(verb));
        }
        if (verb.getBooleanValue("sql")) {
            consumer.subscribe(verb.getString("topic"), MessageSelector.bySql(verb.getString("expression")));
        } else {
            consumer.subscribe(verb.getString("topic"), verb.getString("expression"));
        }
        if (verb.getBooleanValue("orderly")) {
            consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
                boolean good = true;
                for (MessageExt m : messages) {
                    good &= consume(verb, m, context.getMessageQueue());
                }
                return good ? ConsumeOrderlyStatus.SUCCESS : ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
            });
        } else {
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                boolean good = true;
                for (MessageExt m : messages) {
                    good &= consume(verb, m, context.getMessageQueue());
                }
                context.setDelayLevelWhenNextConsume(verb.getIntValue("retry_level"));
                return good ? ConsumeConcurrentlyStatus.CONSUME_SUCCESS : ConsumeConcurrentlyStatus.RECONSUME_LATER;
            });
        }
        consumer.start();
        consumers.put(name, consumer);
        return new JSONObject();
    }

    /**
     * The queues of "topic" that the consumer has now; of an orderly one those whose lock it holds; with "pop" those that it
     * pops from.
     */
    @SuppressWarnings("deprecation")
    JSONObject assigned(JSONObject verb) {
        JSONArray queues = new JSONArray();
        RebalanceImpl rebalance = consumers.get(verb.getString("name")).getDefaultMQPushConsumerImpl().getRebalanceImpl();
        boolean locked = verb.getBooleanValue("locked");
        if (verb.getBooleanValue("pop")) {
            rebalance.getPopProcessQueueTable().forEach((q, state) -> {
                if (q.getTopic().equals(verb.getString("topic")) && !state.isDropped()) {
                    queues.add(Messages.queue(q));
                }
            });
        } else {
            rebalance.getProcessQueueTable().forEach((q, state) -> {
                if (q.getTopic().equals(verb.getString("topic")) && !state.isDropped() && (!locked || state.isLocked())) {
                    queues.add(Messages.queue(q));
                }
            });
        }
        return new JSONObject().fluentPut("queues", queues);
    }

    boolean shutdown(String name) {
        DefaultMQPushConsumer consumer = consumers.remove(name);
        if (consumer != null) {
            consumer.shutdown();
        }
        return consumer != null;
    }

    void shutdownAll() {
        consumers.keySet().forEach(this::shutdown);
    }

    private boolean consume(JSONObject verb, MessageExt m, MessageQueue queue) {
        AtomicInteger others = busy.computeIfAbsent(verb.getString("group") + " " + queue, q -> new AtomicInteger());
        boolean overlap = others.getAndIncrement() > 0;
        try {
            Driver.emit(Messages.shown(m).fluentPut("event", "message").fluentPut("consumer", verb.getString("name"))
                .fluentPut("broker", queue.getBrokerName()).fluentPut("overlap", overlap));
            if (m.getProperty("works_ms") != null) {
                Thread.sleep(Long.parseLong(m.getProperty("works_ms")));
            }
            if (m.getProperty("reply") != null) {
                producers.named(verb.getString("replies_with"))
                    .send(MessageUtil.createReplyMessage(m, m.getProperty("reply").getBytes(StandardCharsets.UTF_8)));
            }
            return m.getProperty("fails") == null || m.getReconsumeTimes() >= Integer.parseInt(m.getProperty("fails"));
        } catch (Exception e) {
            e.printStackTrace();
            return false;
        } finally {
            others.decrementAndGet();
        }
    }
}
