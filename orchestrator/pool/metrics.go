package pool

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	v1 "daybreak/proto/daybreak/v1"
)

type metrics struct {
	desktops *prometheus.GaugeVec
	changes  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		desktops: f.NewGaugeVec(prometheus.GaugeOpts{Name: "daybreak_pool_desktops",
			Help: "Desktops by pool and state: all, ready, claimed, starting, failed."}, []string{"pool", "state"}),
		changes: f.NewCounterVec(prometheus.CounterOpts{Name: "daybreak_pool_changes_total",
			Help: "Desktops written by the pool loop: create, update, delete."}, []string{"verb"}),
	}
}

func (m *metrics) count(pool string, s *v1.PoolStatus) {
	for state, n := range map[string]uint32{
		"all": s.GetDesktops(), "ready": s.GetReady(), "claimed": s.GetClaimed(), "starting": s.GetStarting(), "failed": s.GetFailed(),
	} {
		m.desktops.WithLabelValues(pool, state).Set(float64(n))
	}
}

func (m *metrics) forget(pool string) {
	m.desktops.DeletePartialMatch(prometheus.Labels{"pool": pool})
}
