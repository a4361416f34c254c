package main

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are the process's own; the packages add theirs to the registry.
type metrics struct {
	registry *prometheus.Registry
	reloads  *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiongate_config_reloads_total", Help: "Reloads of the configuration, by result: ok, refused.",
		}, []string{"result"}),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sessiongate_build_info", Help: "Always 1; what runs is in the labels.",
	}, []string{"version", "goversion"})
	build.WithLabelValues(buildVersion(), runtime.Version()).Set(1)
	for _, result := range []string{"ok", "refused"} {
		m.reloads.WithLabelValues(result) // so that an alert on its increase sees the first one
	}
	m.registry.MustRegister(m.reloads, build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}
