package corelane.driver;

import com.alibaba.fastjson2.JSONArray;
import com.alibaba.fastjson2.JSONObject;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.zip.CRC32;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Messages and queues as the lines have them. */
final class Messages {
    /** Longer bodies are shown by their length, their checksum and their beginning. */
    private static final int BODY_SHOWN = 1024;

    private Messages() {
    }

    static List<Message> all(JSONArray list) {
        List<Message> messages = new ArrayList<>();
        for (int i = 0; i < list.size(); i++) {
            messages.add(one(list.getJSONObject(i)));
        }
        return messages;
    }

    /**
     * At most one of "delay_level", "delay_sec", "delay_ms" and "deliver_ms" (milliseconds since 1970) says that it is to wait.
     * "wait_stored" says whether the acknowledgement is to wait for the disk.
     */
    static Message one(JSONObject in) {
        Message m = new Message(in.getString("topic"), in.getString("tag"), in.getString("key"),
            padded(in.getString("body"), in.getIntValue("body_bytes")));
        JSONObject properties = in.getJSONObject("properties");
        if (properties != null) {
            properties.forEach((k, v) -> m.putUserProperty(k, (String) v));
        }
        if (in.containsKey("wait_stored")) {
            m.setWaitStoreMsgOK(in.getBooleanValue("wait_stored"));
        }
        if (in.containsKey("delay_level")) {
            m.setDelayTimeLevel(in.getIntValue("delay_level"));
        }
        if (in.containsKey("delay_sec")) {
            m.setDelayTimeSec(in.getLongValue("delay_sec"));
        }
        if (in.containsKey("delay_ms")) {
            m.setDelayTimeMs(in.getLongValue("delay_ms"));
        }
        if (in.containsKey("deliver_ms")) {
            m.setDeliverTimeMs(in.getLongValue("deliver_ms"));
        }
        return m;
    }

    static byte[] padded(String text, int bytes) {
        byte[] body = text.getBytes(StandardCharsets.UTF_8);
        if (body.length >= bytes) {
            return body;
        }
        byte[] longer = new byte[bytes];
        Arrays.fill(longer, (byte) 'x');
        System.arraycopy(body, 0, longer, 0, body.length);
        return longer;
    }

    static MessageQueue queue(String topic, JSONObject queue) {
        return new MessageQueue(topic, queue.getString("broker"), queue.getIntValue("id"));
    }

    static JSONObject queue(MessageQueue q) {
        return new JSONObject().fluentPut("broker", q.getBrokerName()).fluentPut("queue", q.getQueueId());
    }

    static JSONObject shown(MessageExt m) {
        byte[] body = m.getBody();
        CRC32 crc = new CRC32();
        crc.update(body);
        return new JSONObject().fluentPut("topic", m.getTopic()).fluentPut("broker", m.getBrokerName() == null ? "" : m.getBrokerName())
            .fluentPut("queue", m.getQueueId()).fluentPut("offset", m.getQueueOffset())
            .fluentPut("message_id", m.getMsgId()).fluentPut("tag", m.getTags()).fluentPut("keys", m.getKeys())
            .fluentPut("properties", m.getProperties()).fluentPut("reconsume_times", m.getReconsumeTimes())
            .fluentPut("born_ms", m.getBornTimestamp()).fluentPut("stored_ms", m.getStoreTimestamp())
            .fluentPut("received_ms", System.currentTimeMillis())
            .fluentPut("body", new String(body, 0, Math.min(body.length, BODY_SHOWN), StandardCharsets.UTF_8))
            .fluentPut("body_bytes", body.length).fluentPut("body_crc", crc.getValue());
    }
}
