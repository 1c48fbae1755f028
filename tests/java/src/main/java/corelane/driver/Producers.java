package corelane.driver;

import com.alibaba.fastjson2.JSONArray;
import com.alibaba.fastjson2.JSONObject;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.compression.CompressionType;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Producers by name. Each message that the broker acknowledged is an event "sent", each other one an event "failed". */
final class Producers {
    private final String nameservers;
    private final Map<String, DefaultMQProducer> producers = new ConcurrentHashMap<>();
    private final Map<Long, Stream> streams = new ConcurrentHashMap<>();

    Producers(String nameservers) {
        this.nameservers = nameservers;
    }

    /**
     * May say "retries", "timeout_ms", "vip_channel", "max_message_bytes", "transactions", "check", "trace", "trace_topic",
     * "namespace", "namespace_v2", "default_queues" and "template" of topics that come by themselves, "auto_batch", "compress"
     * (zlib, lz4 or zstd: every body of 100 bytes or more; or none).
     */
    @SuppressWarnings("deprecation")
    JSONObject start(JSONObject verb) throws Exception {
        DefaultMQProducer producer = verb.getBooleanValue("transactions") ? transactional(verb)
            : new DefaultMQProducer(verb.getString("group"), verb.getBooleanValue("trace"), verb.getString("trace_topic"));
        producer.setNamesrvAddr(nameservers);
        producer.setInstanceName(verb.getString("name"));
        producer.setPollNameServerInterval(1000);
        producer.setHeartbeatBrokerInterval(1000);
        producer.setMqClientApiTimeout(20_000);
        producer.setSendMsgTimeout(verb.getIntValue("timeout_ms", 30_000));
        producer.setRetryTimesWhenSendFailed(verb.getIntValue("retries", 0));
        producer.setRetryTimesWhenSendAsyncFailed(verb.getIntValue("retries", 0));
        producer.setVipChannelEnabled(verb.getBooleanValue("vip_channel"));
        producer.setMaxMessageSize(verb.getIntValue("max_message_bytes", 4 * 1024 * 1024));
        if (verb.containsKey("namespace")) {
            producer.setNamespace(verb.getString("namespace"));
        }
        producer.setNamespaceV2(verb.getString("namespace_v2"));
        producer.setDefaultTopicQueueNums(verb.getIntValue("default_queues", 4));
        if (verb.containsKey("template")) {
            producer.setCreateTopicKey(verb.getString("template"));
        }
        producer.setAutoBatch(verb.getBooleanValue("auto_batch"));
        if ("none".equals(verb.getString("compress"))) {
            producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        } else if (verb.containsKey("compress")) {
            producer.setCompressMsgBodyOverHowmuch(100);
            producer.setCompressType(CompressionType.of(verb.getString("compress")));
        }
        producer.start();
        producers.put(verb.getString("name"), producer);
        return new JSONObject();
    }

    /**
     * What becomes of a transaction stands in its message: the property "local" at first, "check" when the broker asks; where
     * it has no "check", in the verb.
     */
    private static TransactionMQProducer transactional(JSONObject verb) {
        TransactionMQProducer producer = new TransactionMQProducer(verb.getString("group"));
        producer.setTransactionListener(new TransactionListener() {
            public LocalTransactionState executeLocalTransaction(Message m, Object unused) {
                return state(m.getProperty("local"));
            }

            public LocalTransactionState checkLocalTransaction(MessageExt m) {
                Driver.emit(Messages.shown(m).fluentPut("event", "message").fluentPut("consumer", verb.getString("name") + " checks"));
                String check = m.getProperty("check");
                return state(check == null ? verb.getString("check") : check);
            }
        });
        return producer;
    }

    private static LocalTransactionState state(String name) {
        switch (String.valueOf(name)) {
            case "commit": return LocalTransactionState.COMMIT_MESSAGE;
            case "rollback": return LocalTransactionState.ROLLBACK_MESSAGE;
            default: return LocalTransactionState.UNKNOW;
        }
    }

    /** Sends "message" and waits for its reply. */
    JSONObject request(JSONObject verb) throws Exception {
        Message reply = named(verb.getString("producer")).request(Messages.one(verb.getJSONObject("message")), verb.getLongValue("timeout_ms"));
        return new JSONObject().fluentPut("body", new String(reply.getBody(), StandardCharsets.UTF_8))
            .fluentPut("properties", reply.getProperties());
    }

    /** Takes back what waits for its time. */
    JSONObject recall(JSONObject verb) throws Exception {
        return new JSONObject().fluentPut("message_id",
            named(verb.getString("producer")).recallMessage(verb.getString("topic"), verb.getString("handle")));
    }

    /**
     * Sends what the verb lists; "mode" is sync, async, oneway, batch (all messages in one frame), selector (the queue is
     * chosen by the hash of the key) or transaction.
     */
    JSONObject send(long id, JSONObject verb) throws Exception {
        DefaultMQProducer producer = named(verb.getString("producer"));
        List<Message> messages = Messages.all(verb.getJSONArray("messages"));
        MessageQueue queue = verb.containsKey("queue") ? Messages.queue(messages.get(0).getTopic(), verb.getJSONObject("queue")) : null;
        switch (verb.getString("mode")) {
            case "sync":
            case "selector":
            case "transaction":
                for (Message m : messages) {
                    try {
                        SendResult result = verb.getString("mode").equals("transaction") ? producer.sendMessageInTransaction(m, null)
                            : verb.getString("mode").equals("selector")
                            ? producer.send(m, (queues, sent, key) -> queues.get(Math.floorMod(key.hashCode(), queues.size())), m.getKeys())
                            : queue == null ? producer.send(m) : producer.send(m, queue);
                        sent(id, m, result, 0);
                    } catch (Exception e) {
                        failed(id, m, e);
                    }
                }
                break;
            case "async":
                CountDownLatch latch = new CountDownLatch(messages.size());
                for (Message m : messages) {
                    SendCallback callback = new SendCallback() {
                        public void onSuccess(SendResult result) {
                            sent(id, m, result, 0);
                            latch.countDown();
                        }

                        public void onException(Throwable e) {
                            failed(id, m, e);
                            latch.countDown();
                        }
                    };
                    try {
                        if (queue == null) {
                            producer.send(m, callback);
                        } else {
                            producer.send(m, queue, callback);
                        }
                    } catch (Exception e) {
                        callback.onException(e);
                    }
                }
                latch.await();
                break;
            case "oneway":
                for (Message m : messages) {
                    if (queue == null) {
                        producer.sendOneway(m);
                    } else {
                        producer.sendOneway(m, queue);
                    }
                }
                break;
            case "batch":
                SendResult all = queue == null ? producer.send(messages) : producer.send(messages, queue);
                for (int i = 0; i < messages.size(); i++) {
                    sent(id, messages.get(i), all, i);
                }
                break;
            default: throw new IllegalArgumentException("mode " + verb.getString("mode"));
        }
        return new JSONObject();
    }

    /**
     * One lane for each of the verb's queues, each sends one message after the other into its queue, with the keys
     * lane-0, lane-1 ..., until so many are acknowledged in all or it is stopped. After a failure a lane waits a moment and
     * goes on with the next message.
     */
    void stream(long id, JSONObject verb) {
        Stream stream = new Stream();
        streams.put(id, stream);
        DefaultMQProducer producer = named(verb.getString("producer"));
        String topic = verb.getString("topic");
        int wanted = verb.getIntValue("acknowledged", Integer.MAX_VALUE);
        int bodyBytes = verb.getIntValue("body_bytes");
        JSONArray queues = verb.getJSONArray("queues");
        stream.lanesOpen.set(queues.size());
        for (int lane = 0; lane < queues.size(); lane++) {
            MessageQueue queue = Messages.queue(topic, queues.getJSONObject(lane));
            int number = lane;
            Thread thread = new Thread(() -> {
                for (int i = 0; !stream.stopped && stream.taken.getAndIncrement() < wanted; i++) {
                    String key = number + "-" + i;
                    Message m = new Message(topic, "stream", key, Messages.padded(key, bodyBytes));
                    try {
                        sent(id, m, producer.send(m, queue), 0);
                    } catch (Exception e) {
                        stream.taken.decrementAndGet();
                        failed(id, m, e);
                        pause(50);
                    }
                }
                if (stream.lanesOpen.decrementAndGet() == 0) {
                    streams.remove(id);
                    Driver.done(id, new JSONObject());
                }
            }, "lane-" + lane);
            thread.start();
        }
    }

    JSONObject stopStream(long stream) {
        Stream s = streams.get(stream);
        if (s != null) {
            s.stopped = true;
        }
        return new JSONObject();
    }

    boolean shutdown(String name) {
        DefaultMQProducer producer = producers.remove(name);
        if (producer != null) {
            producer.shutdown();
        }
        return producer != null;
    }

    void shutdownAll() {
        producers.keySet().forEach(this::shutdown);
    }

    DefaultMQProducer named(String name) {
        DefaultMQProducer producer = producers.get(String.valueOf(name));
        if (producer == null) {
            throw new IllegalArgumentException("no producer is named " + name);
        }
        return producer;
    }

    /** `index` is the place of the message in its batch: the answer tells the first offset, and all ids with commas. */
    private static void sent(long id, Message m, SendResult result, int index) {
        if (result.getSendStatus() != SendStatus.SEND_OK) {
            failed(id, m, new IllegalStateException(result.getSendStatus().name()));
            return;
        }
        MessageQueue queue = result.getMessageQueue();
        Driver.emit(new JSONObject().fluentPut("id", id).fluentPut("event", "sent").fluentPut("key", m.getKeys())
            .fluentPut("topic", m.getTopic()).fluentPut("broker", queue.getBrokerName()).fluentPut("queue", queue.getQueueId())
            .fluentPut("offset", result.getQueueOffset() + index).fluentPut("message_id", part(result.getMsgId(), index))
            .fluentPut("offset_message_id", part(result.getOffsetMsgId(), index)).fluentPut("recall_handle", result.getRecallHandle()));
    }

    private static String part(String ids, int index) {
        return ids == null ? "" : ids.split(",")[index];
    }

    private static void failed(long id, Message m, Throwable e) {
        Driver.emit(new JSONObject().fluentPut("id", id).fluentPut("event", "failed").fluentPut("key", m.getKeys())
            .fluentPut("error", Driver.describe(e)));
    }

    private static void pause(long ms) {
        try {
            Thread.sleep(ms);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private static final class Stream {
        final AtomicInteger taken = new AtomicInteger();
        final AtomicInteger lanesOpen = new AtomicInteger();
        volatile boolean stopped;
    }
}
