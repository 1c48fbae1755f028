package corelane.driver;

import com.alibaba.fastjson2.JSONArray;
import com.alibaba.fastjson2.JSONObject;
import java.util.ArrayList;
import java.util.List;
import org.apache.rocketmq.client.consumer.AllocateMessageQueueStrategy;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMachineRoomNearby;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragely;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragelyByCircle;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueByConfig;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueConsistentHash;
import org.apache.rocketmq.common.message.MessageQueue;

/** How consumers share queues. */
final class Strategies {
    private Strategies() {
    }

    /** For "config" the verb lists the "queues"; for "nearby" rooms are the last characters of brokers' and consumers' names. */
    static AllocateMessageQueueStrategy named(JSONObject verb) {
        switch (verb.getString("strategy")) {
            case "averagely": return new AllocateMessageQueueAveragely();
            case "circle": return new AllocateMessageQueueAveragelyByCircle();
            case "hash": return new AllocateMessageQueueConsistentHash();
            case "nearby":
                return new AllocateMachineRoomNearby(new AllocateMessageQueueAveragely(), new AllocateMachineRoomNearby.MachineRoomResolver() {
                    public String brokerDeployIn(MessageQueue queue) {
                        return last(queue.getBrokerName());
                    }

                    public String consumerDeployIn(String clientId) {
                        return last(clientId.split("@")[1]);
                    }
                });
            case "config":
                AllocateMessageQueueByConfig config = new AllocateMessageQueueByConfig();
                List<MessageQueue> queues = new ArrayList<>();
                JSONArray list = verb.getJSONArray("queues");
                for (int i = 0; i < list.size(); i++) {
                    queues.add(Messages.queue(verb.getString("topic"), list.getJSONObject(i)));
                }
                config.setMessageQueueList(queues);
                return config;
            default: throw new IllegalArgumentException("strategy " + verb.getString("strategy"));
        }
    }

    private static String last(String name) {
        return name.substring(name.length() - 1);
    }
}
