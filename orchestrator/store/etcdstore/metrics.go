package etcdstore

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"daybreak/orchestrator/store"
)

// metrics are what a Backend counts.
type metrics struct {
	commits  *prometheus.CounterVec
	seconds  prometheus.Histogram
	broken   prometheus.Counter
	restarts prometheus.Counter
}

func newMetrics() *metrics {
	return &metrics{
		commits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "daybreak_store_commits_total", Help: "Transactions, by outcome.",
		}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "daybreak_store_commit_seconds", Help: "Time of a transaction, whatever its outcome.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}),
		broken: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "daybreak_store_broken_values_total", Help: "Stored values that could not be decoded, each time one was read. Should be 0.",
		}),
		restarts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "daybreak_store_watch_restarts_total", Help: "Watches that had to read everything again.",
		}),
	}
}

// Describe implements prometheus.Collector.
func (b *Backend) Describe(out chan<- *prometheus.Desc) {
	for _, c := range b.metrics.all() {
		c.Describe(out)
	}
}

// Collect implements prometheus.Collector.
func (b *Backend) Collect(out chan<- prometheus.Metric) {
	for _, c := range b.metrics.all() {
		c.Collect(out)
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.commits, m.seconds, m.broken, m.restarts}
}

func (m *metrics) commit(took time.Duration, err error) {
	m.seconds.Observe(took.Seconds())
	m.commits.WithLabelValues(outcome(err)).Inc()
}

func outcome(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, store.ErrUnknownOutcome):
		return "unknown"
	case errors.Is(err, store.ErrNotLeader):
		return "not_leader"
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrExists):
		return "conflict"
	case errors.Is(err, store.ErrInvalid):
		return "invalid"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "canceled"
	}
	return "failed"
}
