package proxy

import (
	"maps"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the proxy's (DESIGN.md, section 12). They outlive a reload.
type Metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	upstream *prometheus.CounterVec
	rejected *prometheus.CounterVec
	streams  *prometheus.GaugeVec
}

// NewMetrics registers the metrics; with nil they are counted and not exported.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiongate_requests_total", Help: "Requests answered, by app, route, method and status; 499: broken off.",
		}, []string{"app", "route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sessiongate_request_seconds", Help: "Time to the end of the answer; of streams to its beginning.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"app", "route"}),
		upstream: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiongate_upstream_errors_total", Help: "Requests to upstreams that were not answered in full, by kind: unreachable, timeout, aborted.",
		}, []string{"app", "route", "kind"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiongate_csrf_rejected_total", Help: "Requests that a foreign site may have caused, by reason: header_missing, origin.",
		}, []string{"app", "reason"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sessiongate_streams_open", Help: "Open streams, by kind: websocket, sse, events, download, grpc.",
		}, []string{"app", "kind"}),
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.seconds, m.upstream, m.rejected, m.streams)
	}
	return m
}

// meters are the metrics of one route, looked up once.
type meters struct {
	seconds                          prometheus.Observer
	unreachable, timeout, aborted    prometheus.Counter
	webSocket, sse, events, download prometheus.Gauge
	grpc                             prometheus.Gauge
	headerMissing, originDenied      prometheus.Counter

	requests *prometheus.CounterVec // by method and status
	mu       sync.Mutex             // guards changes of byAnswer
	byAnswer atomic.Pointer[map[answerKey]prometheus.Counter]
}

type answerKey struct {
	method string
	status int
}

func (m *Metrics) meters(app, route string) *meters {
	labels := prometheus.Labels{"app": app, "route": route}
	upstream := m.upstream.MustCurryWith(labels)
	t := &meters{
		seconds:     m.seconds.With(labels),
		unreachable: upstream.WithLabelValues("unreachable"), timeout: upstream.WithLabelValues("timeout"), aborted: upstream.WithLabelValues("aborted"),
		webSocket: m.streams.WithLabelValues(app, "websocket"), sse: m.streams.WithLabelValues(app, "sse"), events: m.streams.WithLabelValues(app, "events"),
		download:      m.streams.WithLabelValues(app, "download"),
		grpc:          m.streams.WithLabelValues(app, "grpc"),
		headerMissing: m.rejected.WithLabelValues(app, "header_missing"), originDenied: m.rejected.WithLabelValues(app, "origin"),
		requests: m.requests.MustCurryWith(labels),
	}
	t.byAnswer.Store(&map[answerKey]prometheus.Counter{})
	return t
}

// count counts an answer. A route has few pairs of method and status, so the
// counters are kept in a map that is copied when it grows and read without a
// lock.
func (t *meters) count(method string, status int) {
	key := answerKey{knownMethod(method), status}
	c := (*t.byAnswer.Load())[key]
	if c == nil {
		c = t.add(key)
	}
	c.Inc()
}

func (t *meters) add(key answerKey) prometheus.Counter {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.requests.WithLabelValues(key.method, strconv.Itoa(key.status))
	grown := maps.Clone(*t.byAnswer.Load())
	grown[key] = c
	t.byAnswer.Store(&grown)
	return c
}

// knownMethod bounds the label: methods are the client's to invent.
func knownMethod(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return method
	}
	return "other"
}

func (t *meters) csrf(err csrfError) {
	if err == errHeaderMissing {
		t.headerMissing.Inc()
		return
	}
	t.originDenied.Inc()
}
