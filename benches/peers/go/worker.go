// A handwritten webhook worker: RabbitMQ to webhooks, with a retry queue.
//
//	worker BROKER_URL QUEUE WEBHOOKS_FILE
//
// The worker ends when its standard input closes.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	prefetch     = 1000
	timeout      = 15 * time.Second
	retryAfterMs = 5_000
	flushAfter   = 2 * time.Millisecond
)

type webhook struct {
	URL     string                     `json:"url"`
	Body    map[string]json.RawMessage `json:"body"`
	Headers map[string]string          `json:"headers"`
}

// The parameters of a request in their order. Absent ones are omitted.
type event struct {
	CampaignID  string          `json:"campaignId"`
	Label       string          `json:"label"`
	PhoneNumber string          `json:"phoneNumber"`
	Date        time.Time       `json:"date"`
	Response    json.RawMessage `json:"response,omitempty"`
	Option      json.RawMessage `json:"option,omitempty"`
	Keyword     json.RawMessage `json:"keyword,omitempty"`
}

type worker struct {
	client     *http.Client
	webhooks   map[string]webhook
	publisher  *amqp.Channel
	retryQueue string
	finished   chan uint64
}

func main() {
	log.SetFlags(0)
	brokerURL, queue, webhooksFile := os.Args[1], os.Args[2], os.Args[3]
	file, err := os.ReadFile(webhooksFile)
	check(err)
	webhooks := map[string]webhook{}
	check(json.Unmarshal(file, &webhooks))

	connection, err := amqp.Dial(brokerURL)
	check(err)
	channel, err := connection.Channel()
	check(err)
	publisher, err := connection.Channel()
	check(err)
	check(publisher.Confirm(false))
	retryQueue := queue + ".retry"
	_, err = publisher.QueueDeclare(retryQueue, true, false, false, false, amqp.Table{
		"x-queue-type":              "quorum",
		"x-message-ttl":             retryAfterMs,
		"x-dead-letter-exchange":    "",
		"x-dead-letter-routing-key": queue,
	})
	check(err)
	check(channel.Qos(prefetch, 0, false))
	messages, err := channel.Consume(queue, "", false, false, false, false, nil)
	check(err)

	w := worker{
		client: &http.Client{
			Timeout:   timeout,
			Transport: &http.Transport{MaxIdleConns: 0, MaxIdleConnsPerHost: prefetch},
		},
		webhooks:   webhooks,
		publisher:  publisher,
		retryQueue: retryQueue,
		finished:   make(chan uint64, prefetch),
	}
	go w.acknowledge(channel)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for message := range messages {
		go w.deliver(message)
	}
	log.Fatal("the broker closed the channel")
}

func (w *worker) deliver(message amqp.Delivery) {
	delivered, err := w.post(message.Body)
	if err != nil {
		log.Printf("request failed: %v", err)
	}
	if !delivered {
		again := amqp.Publishing{Body: message.Body, DeliveryMode: amqp.Persistent}
		confirm, err := w.publisher.PublishWithDeferredConfirmWithContext(
			context.Background(), "", w.retryQueue, false, false, again)
		check(err)
		if !confirm.Wait() {
			log.Fatal("the broker refused a message")
		}
	}
	w.finished <- message.DeliveryTag
}

// Reports whether the event is done.
func (w *worker) post(content []byte) (bool, error) {
	var e event
	if err := json.Unmarshal(content, &e); err != nil {
		return false, err
	}
	hook, known := w.webhooks[e.CampaignID]
	if !known {
		return true, nil
	}
	e.Date = e.Date.UTC().Truncate(time.Millisecond)
	body, err := json.Marshal(e)
	if err != nil {
		return false, err
	}
	if len(hook.Body) > 0 {
		extra, err := json.Marshal(hook.Body)
		if err != nil {
			return false, err
		}
		body = append(append(body[:len(body)-1], ','), extra[1:]...)
	}
	request, err := http.NewRequest(http.MethodPost, hook.URL, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	request.Header.Set("content-type", "application/json")
	for name, value := range hook.Headers {
		request.Header.Set(name, value)
	}
	answer, err := w.client.Do(request)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode >= 200 && answer.StatusCode < 300, err
}

// Sends one acknowledgement for all consecutive finished messages.
func (w *worker) acknowledge(channel *amqp.Channel) {
	finished := make(map[uint64]bool, prefetch)
	first, flush := uint64(1), (<-chan time.Time)(nil)
	for {
		select {
		case tag := <-w.finished:
			finished[tag] = true
			if flush == nil {
				flush = time.After(flushAfter)
			}
		case <-flush:
			flush = nil
			begin := first
			for finished[first] {
				delete(finished, first)
				first++
			}
			if first > begin {
				check(channel.Ack(first-1, true))
			}
		}
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
