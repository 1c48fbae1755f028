package corelane.driver;

import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONObject;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;

/**
 * The real Java client behind a line protocol: one JSON object a line on standard input is a verb ("id", "do" and its own
 * members), one JSON object a line on standard output is an event. A verb ends with the event "done" or "error" of its id.
 * The end of the input closes all producers and consumers in the ordinary way and ends the process.
 *
 * Usage: Driver NAMESERVERS, as the client takes them: host:port;host:port.
 */
public final class Driver {
    private static final PrintStream OUT = new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);

    private Driver() {
    }

    public static void main(String[] args) throws Exception {
        System.setOut(System.err);
        if (System.getProperty("rocketmq.client.rebalance.waitInterval") == null) {
            // Clients look for new queues every second instead of every twenty.
            System.setProperty("rocketmq.client.rebalance.waitInterval", "1000");
        }
        String nameservers = args[0];
        Producers producers = new Producers(nameservers);
        Consumers consumers = new Consumers(nameservers, producers);
        PullConsumers pullConsumers = new PullConsumers(nameservers);
        Admin admin = new Admin(nameservers);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            JSONObject verb = JSON.parseObject(line);
            long id = verb.getLongValue("id");
            try {
                switch (verb.getString("do")) {
                    case "producer": done(id, producers.start(verb)); break;
                    case "send": done(id, producers.send(id, verb)); break;
                    case "stream": producers.stream(id, verb); break;
                    case "stop_stream": done(id, producers.stopStream(verb.getLongValue("stream"))); break;
                    case "request": done(id, producers.request(verb)); break;
                    case "recall": done(id, producers.recall(verb)); break;
                    case "consumer": done(id, consumers.start(verb)); break;
                    case "assigned": done(id, consumers.assigned(verb)); break;
                    case "pull":
                    case "lite_pull":
                    case "lite_start":
                    case "lite_poll":
                    case "lite_seek":
                    case "lite_commit":
                    case "lite_committed":
                    case "lite_assignment": done(id, pullConsumers.run(verb)); break;
                    case "shutdown":
                        String name = verb.getString("name");
                        if (!producers.shutdown(name) && !consumers.shutdown(name) && !pullConsumers.shutdown(name)) {
                            throw new IllegalArgumentException("nothing is named " + name);
                        }
                        done(id, new JSONObject());
                        break;
                    default: done(id, admin.run(verb));
                }
            } catch (Exception e) {
                emit(new JSONObject().fluentPut("id", id).fluentPut("event", "error").fluentPut("error", describe(e)));
            }
        }
        producers.shutdownAll();
        consumers.shutdownAll();
        pullConsumers.shutdownAll();
        admin.shutdown();
        System.exit(0);
    }

    static void done(long id, JSONObject result) {
        emit(result.fluentPut("id", id).fluentPut("event", "done"));
    }

    static void emit(JSONObject event) {
        String line = event.toString();
        synchronized (OUT) {
            OUT.println(line);
        }
    }

    /** The exception's class, the response code where there is one, and the text. */
    static String describe(Throwable e) {
        String code = "";
        if (e instanceof MQBrokerException) {
            code = " code " + ((MQBrokerException) e).getResponseCode();
        } else if (e instanceof MQClientException) {
            code = " code " + ((MQClientException) e).getResponseCode();
        }
        String cause = e.getCause() == null ? "" : "; because of " + describe(e.getCause());
        return e.getClass().getSimpleName() + code + ": " + e.getMessage() + cause;
    }
}
