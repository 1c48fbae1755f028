// Command driver is the real Go client behind a line protocol: one JSON object a line on standard input is a verb ("id",
// "do" and its own members), one JSON object a line on standard output is an event. A verb ends with the event "done" or
// "error" of its id. The end of the input closes all producers and consumers in the ordinary way and ends the process.
//
// Usage: driver NAMESERVERS, with semicolons between them: host:port;host:port.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/rlog"
)

type queueAt struct {
	Broker string `json:"broker"`
	ID     int    `json:"id"`
}

type messageIn struct {
	Topic      string            `json:"topic"`
	Tag        string            `json:"tag"`
	Key        string            `json:"key"`
	Properties map[string]string `json:"properties"`
	Body       string            `json:"body"`
	BodyBytes  int               `json:"body_bytes"`
	DelayLevel int               `json:"delay_level"`
	DelaySec   int64             `json:"delay_sec"`
	DelayMs    int64             `json:"delay_ms"`
	DeliverMs  int64             `json:"deliver_ms"`
}

// verb is a line of the input: the members of all verbs together.
type verb struct {
	ID int64  `json:"id"`
	Do string `json:"do"`

	Name     string `json:"name"`
	Group    string `json:"group"`
	Topic    string `json:"topic"`
	Producer string `json:"producer"`
	Retries  int    `json:"retries"`

	Mode     string      `json:"mode"`
	Messages []messageIn `json:"messages"`
	Queue    *queueAt    `json:"queue"`

	Queues       []queueAt `json:"queues"`
	Acknowledged int64     `json:"acknowledged"`
	BodyBytes    int       `json:"body_bytes"`
	Stream       int64     `json:"stream"`

	Expression  string `json:"expression"`
	Model       string `json:"model"`
	From        string `json:"from"`
	TimestampMs int64  `json:"timestamp_ms"`

	Offset int64 `json:"offset"`
	Count  int   `json:"count"`

	Transactions bool       `json:"transactions"`
	Check        string     `json:"check"`
	Namespace    string     `json:"namespace"`
	SQL          bool       `json:"sql"`
	Orderly      bool       `json:"orderly"`
	MaxReconsume *int32     `json:"max_reconsume"`
	RetryLevel   int        `json:"retry_level"`
	RepliesWith  string     `json:"replies_with"`
	Message      *messageIn `json:"message"`
	TimeoutMs    int64      `json:"timeout_ms"`

	Trace      bool   `json:"trace"`
	TraceTopic string `json:"trace_topic"`

	Brokers    []string `json:"brokers"`
	QueueCount int      `json:"queue_count"`
}

type event map[string]any

var (
	out         = json.NewEncoder(os.Stdout)
	outLock     sync.Mutex
	nameservers primitive.NamesrvAddr
)

// traced says where a producer or consumer writes what it does, and in whose name.
func traced(v verb) *primitive.TraceConfig {
	return &primitive.TraceConfig{TraceTopic: v.TraceTopic, GroupName: v.Group, Access: primitive.Local, NamesrvAddrs: nameservers}
}

func emit(e event) {
	outLock.Lock()
	defer outLock.Unlock()
	if err := out.Encode(e); err != nil {
		os.Exit(1) // Nobody listens any more.
	}
}

func done(id int64, result event) {
	if result == nil {
		result = event{}
	}
	result["id"], result["event"] = id, "done"
	emit(result)
}

func run(v verb) (event, error) {
	switch v.Do {
	case "producer":
		return nil, startProducer(v)
	case "send":
		return nil, send(v)
	case "stop_stream":
		stopStream(v.Stream)
		return nil, nil
	case "request":
		return request(v)
	case "consumer":
		return nil, startConsumer(v)
	case "pull":
		return pull(v)
	case "pull_start":
		_, err := startPullConsumer(v)
		return nil, err
	case "pull_poll":
		return poll(v)
	case "set_pull_offset", "pull_offset":
		return pullOffset(v)
	case "shutdown":
		return nil, shutdown(v.Name)
	case "create_topic", "delete_topic", "topics":
		return administer(v)
	}
	return nil, fmt.Errorf("no verb %q", v.Do)
}

func shutdown(name string) error {
	if p, ok := producers[name]; ok {
		delete(producers, name)
		return p.Shutdown()
	}
	if p, ok := transactionProducers[name]; ok {
		delete(transactionProducers, name)
		return p.Shutdown()
	}
	if c, ok := consumers[name]; ok {
		delete(consumers, name)
		return c.Shutdown()
	}
	if c, ok := pullConsumers[name]; ok {
		delete(pullConsumers, name)
		return c.Shutdown()
	}
	return fmt.Errorf("nothing is named %q", name)
}

func main() {
	nameservers = strings.Split(os.Args[1], ";")
	rlog.SetLogLevel("warn")
	out.SetEscapeHTML(false)
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 64<<20)
	for in.Scan() {
		var v verb
		err := json.Unmarshal(in.Bytes(), &v)
		if err == nil && v.Do == "stream" {
			err = stream(v)
			if err == nil {
				continue
			}
		}
		var result event
		if err == nil {
			result, err = run(v)
		}
		if err != nil {
			emit(event{"id": v.ID, "event": "error", "error": err.Error()})
		} else {
			done(v.ID, result)
		}
	}
	for name := range producers {
		_ = shutdown(name)
	}
	for name := range transactionProducers {
		_ = shutdown(name)
	}
	for name := range consumers {
		_ = shutdown(name)
	}
	for name := range pullConsumers {
		_ = shutdown(name)
	}
}
