package dispatch

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	v1 "daybreak/proto/daybreak/v1"
)

type metrics struct {
	sessions    prometheus.Gauge
	reports     *prometheus.CounterVec
	assignments *prometheus.CounterVec
	ignored     *prometheus.CounterVec
	batch       prometheus.Histogram
	hosts       *prometheus.GaugeVec
	frozen      prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		sessions: f.NewGauge(prometheus.GaugeOpts{Name: "daybreak_dispatch_sessions", Help: "Sessions of agents that are open."}),
		reports: f.NewCounterVec(prometheus.CounterOpts{Name: "daybreak_dispatch_reports_total",
			Help: "Reports of agents by result: acknowledged, refused, failed."}, []string{"result"}),
		assignments: f.NewCounterVec(prometheus.CounterOpts{Name: "daybreak_dispatch_assignments_total",
			Help: "Assignments sent to agents by kind: set, drop."}, []string{"kind"}),
		ignored: f.NewCounterVec(prometheus.CounterOpts{Name: "daybreak_dispatch_statuses_ignored_total",
			Help: "Reported statuses that were not stored, by reason: foreign, backward, invalid."}, []string{"reason"}),
		batch: f.NewHistogram(prometheus.HistogramOpts{Name: "daybreak_dispatch_status_batch_size",
			Help: "Objects written at once.", Buckets: []float64{1, 4, 16, 64, 256, 1024}}),
		hosts: f.NewGaugeVec(prometheus.GaugeOpts{Name: "daybreak_dispatch_hosts", Help: "Hosts by phase."}, []string{"phase"}),
		frozen: f.NewGauge(prometheus.GaugeOpts{Name: "daybreak_dispatch_frozen",
			Help: "1 while so many hosts are silent that destructive acts are frozen."}),
	}
}

var phaseNames = map[v1.HostPhase]string{
	v1.HostPhase_HOST_PHASE_UNSPECIFIED: "unknown",
	v1.HostPhase_HOST_PHASE_UP:          "up",
	v1.HostPhase_HOST_PHASE_DEGRADED:    "degraded",
	v1.HostPhase_HOST_PHASE_DOWN:        "down",
}
