package session

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	refreshes      *prometheus.CounterVec
	refreshSeconds prometheus.Histogram
	leaseWait      prometheus.Histogram
	ended          *prometheus.CounterVec
	unrevoked      prometheus.Counter
	storeSeconds   *prometheus.HistogramVec
	storeErrors    *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, store Store) *metrics {
	m := &metrics{
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiongate_refreshes_total", Help: "Token refreshes; ambiguous: sent again after an attempt without an answer.",
		}, []string{"app", "result"}),
		refreshSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sessiongate_refresh_seconds", Help: "Time of the provider's token calls at refresh.",
		}),
		leaseWait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sessiongate_lease_wait_seconds", Help: "Time a refresh waited for the session's lease.",
		}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiongate_sessions_ended_total", Help: "Sessions that ended, by reason.",
		}, []string{"app", "reason"}),
		unrevoked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sessiongate_unrevoked_total", Help: "Ended sessions whose refresh token could not be revoked.",
		}),
		storeSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sessiongate_store_seconds", Help: "Time of store operations.",
			Buckets: prometheus.ExponentialBuckets(0.00005, 4, 10),
		}, []string{"op"}),
		storeErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiongate_store_errors_total", Help: "Store operations without an answer.",
		}, []string{"op"}),
	}
	if reg == nil {
		return m
	}
	active := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sessiongate_sessions_active", Help: "Live sessions in the store.",
	}, func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		n, err := store.Count(ctx)
		if err != nil {
			return -1
		}
		return float64(n)
	})
	reg.MustRegister(m.refreshes, m.refreshSeconds, m.leaseWait, m.ended, m.unrevoked, m.storeSeconds, m.storeErrors, active)
	return m
}

func (m *metrics) refresh(a *App, result string) {
	m.refreshes.WithLabelValues(a.cfg.Origin, result).Inc()
}

// measured is a Store that counts what it is asked. Waiting for a lease is no
// work of the store's and has a measure of its own.
type measured struct {
	Store
	m *metrics
}

// done is deferred with the time an operation began and a pointer to its error.
func (s *measured) done(op string, begin time.Time, err *error) {
	s.m.storeSeconds.WithLabelValues(op).Observe(time.Since(begin).Seconds())
	for _, answer := range []error{nil, ErrAbsent, ErrExists, ErrConflict, ErrLeaseLost, context.Canceled} {
		if errors.Is(*err, answer) {
			return
		}
	}
	s.m.storeErrors.WithLabelValues(op).Inc()
}

func (s *measured) Create(ctx context.Context, key Key, rec Record) (err error) {
	defer s.done("create", time.Now(), &err)
	return s.Store.Create(ctx, key, rec)
}

func (s *measured) Load(ctx context.Context, key Key) (rec Record, err error) {
	defer s.done("load", time.Now(), &err)
	return s.Store.Load(ctx, key)
}

func (s *measured) Replace(ctx context.Context, key Key, version uint64, data []byte) (err error) {
	defer s.done("replace", time.Now(), &err)
	return s.Store.Replace(ctx, key, version, data)
}

func (s *measured) End(ctx context.Context, key Key, reason Reason, c Condition) (rec Record, err error) {
	defer s.done("end", time.Now(), &err)
	return s.Store.End(ctx, key, reason, c)
}

func (s *measured) EndTagged(ctx context.Context, tag Tag, reason Reason, sc Scope) (e []Ending, err error) {
	defer s.done("end_tagged", time.Now(), &err)
	return s.Store.EndTagged(ctx, tag, reason, sc)
}

func (s *measured) Mark(ctx context.Context, tag Tag, m Mark) (err error) {
	defer s.done("mark", time.Now(), &err)
	return s.Store.Mark(ctx, tag, m)
}

func (s *measured) Tagged(ctx context.Context, tag Tag, after Key, limit int) (l []Listed, err error) {
	defer s.done("tagged", time.Now(), &err)
	return s.Store.Tagged(ctx, tag, after, limit)
}

func (s *measured) Touch(ctx context.Context, touches []Touch) (err error) {
	defer s.done("touch", time.Now(), &err)
	return s.Store.Touch(ctx, touches)
}

func (s *measured) Once(ctx context.Context, key Key, until time.Time) (err error) {
	defer s.done("once", time.Now(), &err)
	return s.Store.Once(ctx, key, until)
}

func (s *measured) Sweep(ctx context.Context, l Limits) (e []Ending, err error) {
	defer s.done("sweep", time.Now(), &err)
	return s.Store.Sweep(ctx, l)
}
