package hostagent

import (
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	v1 "daybreak/proto/daybreak/v1"
)

type metrics struct {
	steps    *prometheus.HistogramVec
	sessions prometheus.Counter
	refused  prometheus.Counter
	fetched  prometheus.Counter
	// fromPeers and given count what travels between hosts.
	fromPeers, given prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer, a *Agent) *metrics {
	m := &metrics{
		steps: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "daybreak_agent_step_seconds", Help: "Time that one step of one desktop took, by step and outcome.",
			Buckets: prometheus.ExponentialBuckets(0.01, 3, 10),
		}, []string{"step", "outcome"}),
		sessions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "daybreak_agent_sessions_total", Help: "Sessions with the control plane that were begun.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "daybreak_agent_refused_assignments_total", Help: "Assignments refused because they were invalid or older than what this host has seen.",
		}),
		fetched: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "daybreak_agent_fetched_bytes_total", Help: "Bytes of images fetched from the control plane, compressed.",
		}),
	}
	m.fromPeers = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "daybreak_agent_fetched_from_peers_bytes_total", Help: "Bytes of images fetched from other hosts, compressed.",
	})
	m.given = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "daybreak_agent_given_to_peers_bytes_total", Help: "Bytes of images given to other hosts, compressed.",
	})
	registerer.MustRegister(m.steps, m.sessions, m.refused, m.fetched, m.fromPeers, m.given, stateCollector{a},
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "daybreak_agent_session_up", Help: "1 while there is a session with the control plane.",
		}, a.sessionUp),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "daybreak_agent_boots_in_flight", Help: "VMs that were started and are not ready yet.",
		}, func() float64 { inFlight, _ := a.governor.counts(); return float64(inFlight) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "daybreak_agent_boot_limit", Help: "VMs that may boot at once now, by what the host bears.",
		}, func() float64 { _, limit := a.governor.counts(); return float64(limit) }),
	)
	return m
}

// step counts one step and its time.
func (m *metrics) step(do action, took time.Duration, err error) {
	outcome := "done"
	switch {
	case errors.Is(err, ErrTimeout):
		outcome = "unknown"
	case err != nil:
		outcome = "failed"
	}
	m.steps.WithLabelValues(do.String(), outcome).Observe(took.Seconds())
}

// stateCollector counts incarnations by state when it is asked.
type stateCollector struct{ agent *Agent }

func (c stateCollector) description() *prometheus.Desc {
	return prometheus.NewDesc("daybreak_agent_incarnations", "Incarnations on this host, by state.", []string{"state"}, nil)
}

// Describe implements prometheus.Collector.
func (c stateCollector) Describe(out chan<- *prometheus.Desc) { out <- c.description() }

// Collect implements prometheus.Collector.
func (c stateCollector) Collect(out chan<- prometheus.Metric) {
	counts := map[v1.DesktopState]int{}
	for _, e := range c.agent.book.all() {
		counts[e.status.GetState()]++
	}
	for state := range v1.DesktopState_name {
		name := strings.ToLower(strings.TrimPrefix(v1.DesktopState(state).String(), "DESKTOP_STATE_"))
		out <- prometheus.MustNewConstMetric(c.description(), prometheus.GaugeValue, float64(counts[v1.DesktopState(state)]), name)
	}
}
