package corelane.driver;

import com.alibaba.fastjson2.JSONArray;
import com.alibaba.fastjson2.JSONObject;
import java.util.Collection;
import java.util.Map;
import org.apache.rocketmq.client.trace.TraceContext;
import org.apache.rocketmq.client.trace.TraceDataEncoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.admin.OffsetWrapper;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** Messages that are found again, and offsets that are read and set by hand. */
final class Queries {
    private Queries() {
    }

    /** Null when there is no such verb. */
    static JSONObject run(DefaultMQAdminExt client, JSONObject verb) throws Exception {
        JSONObject out = new JSONObject();
        String topic = verb.getString("topic");
        String group = verb.getString("group");
        long begin = verb.getLongValue("begin_ms");
        long end = verb.containsKey("end_ms") ? verb.getLongValue("end_ms") : Long.MAX_VALUE;
        int max = verb.getIntValue("max", 32);
        switch (verb.getString("do")) {
            case "view": return Messages.shown(client.viewMessage(topic, verb.getString("message_id")));
            case "by_key":
                return messages(client.queryMessage(topic, verb.getString("key"), max, begin, end).getMessageList());
            case "by_unique_key":
                return messages(client.queryMessageByUniqKey("DefaultCluster", topic, verb.getString("key"), max, begin, end).getMessageList());
            case "traces": return traces(client.queryMessage(topic, verb.getString("key"), max, begin, end).getMessageList());
            case "offsets":
                JSONArray queues = new JSONArray();
                long time = verb.getLongValue("timestamp_ms");
                for (MessageQueue q : client.getDefaultMQAdminExtImpl().getMqClientInstance().getMQAdminImpl()
                        .fetchSubscribeMessageQueues(topic)) {
                    queues.add(Messages.queue(q).fluentPut("min", client.minOffset(q)).fluentPut("max", client.maxOffset(q))
                        .fluentPut("at", client.searchOffset(q, time)).fluentPut("lower", client.searchLowerBoundaryOffset(q, time))
                        .fluentPut("upper", client.searchUpperBoundaryOffset(q, time))
                        .fluentPut("earliest_ms", client.earliestMsgStoreTime(q)));
                }
                return out.fluentPut("queues", queues);
            case "progress": return progress(client.examineConsumeStats(group, topic).getOffsetTable());
            case "reset":
                return offsets(client.resetOffsetByTimestamp(topic, group, verb.getLongValue("timestamp_ms"), verb.getBooleanValue("force")));
            case "set_offset":
                client.updateConsumeOffset(verb.getString("broker"), group, Messages.queue(topic, verb.getJSONObject("queue")),
                    verb.getLongValue("offset"));
                return out;
            case "clone_offsets":
                client.cloneGroupOffset(group, verb.getString("to_group"), topic, verb.getBooleanValue("offline"));
                return out;
            case "time_spans":
                JSONArray spans = new JSONArray();
                client.queryConsumeTimeSpan(topic, group).forEach(s -> spans.add(Messages.queue(s.getMessageQueue())
                    .fluentPut("min_ms", s.getMinTimeStamp()).fluentPut("max_ms", s.getMaxTimeStamp())
                    .fluentPut("consumed_ms", s.getConsumeTimeStamp()).fluentPut("delay_ms", s.getDelayTime())));
                return out.fluentPut("queues", spans);
            case "consume_status":
                client.getConsumeStatus(topic, group, verb.getString("client")).forEach((c, table) -> out.put(c, offsets(table).get("queues")));
                return out;
            default: return null;
        }
    }

    private static JSONObject messages(Collection<MessageExt> found) {
        JSONArray messages = new JSONArray();
        found.forEach(m -> messages.add(Messages.shown(m)));
        return new JSONObject().fluentPut("messages", messages);
    }

    /** What clients have written of their own doing into a trace topic. */
    private static JSONObject traces(Collection<MessageExt> found) {
        JSONArray traces = new JSONArray();
        for (MessageExt m : found) {
            for (TraceContext c : TraceDataEncoder.decoderFromTraceDataString(new String(m.getBody(), java.nio.charset.StandardCharsets.UTF_8))) {
                traces.add(new JSONObject().fluentPut("type", c.getTraceType().name()).fluentPut("group", c.getGroupName())
                    .fluentPut("success", c.isSuccess()).fluentPut("topic", c.getTraceBeans().get(0).getTopic())
                    .fluentPut("keys", c.getTraceBeans().get(0).getKeys()));
            }
        }
        return new JSONObject().fluentPut("traces", traces);
    }

    private static JSONObject progress(Map<MessageQueue, OffsetWrapper> offsets) {
        JSONArray queues = new JSONArray();
        offsets.forEach((q, o) ->
            queues.add(Messages.queue(q).fluentPut("committed", o.getConsumerOffset()).fluentPut("end", o.getBrokerOffset())));
        return new JSONObject().fluentPut("queues", queues);
    }

    private static JSONObject offsets(Map<MessageQueue, Long> offsets) {
        JSONArray queues = new JSONArray();
        offsets.forEach((q, offset) -> queues.add(Messages.queue(q).fluentPut("offset", offset)));
        return new JSONObject().fluentPut("queues", queues);
    }
}
