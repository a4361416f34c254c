package oidc

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts logins. All apps share one.
type Metrics struct {
	logins *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sessiongate_logins_total",
		Help: "Logins that came back from the provider, by result: ok, denied, failed.",
	}, []string{"app", "result"})}
	if err := reg.Register(m.logins); err != nil {
		return nil, err
	}
	return m, nil
}

// login counts one. A nil Metrics counts nothing.
func (m *Metrics) login(app, result string) {
	if m != nil {
		m.logins.WithLabelValues(app, result).Inc()
	}
}
