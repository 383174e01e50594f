package api

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

type metrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "daybreak_api_calls_total", Help: "Calls that ended, by method and gRPC code.",
		}, []string{"method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "daybreak_api_call_seconds", Help: "Time that unary calls took, by method.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}, []string{"method"}),
	}
	for _, collector := range []prometheus.Collector{m.calls, m.seconds} {
		if err := registerer.Register(collector); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// ended counts a call. method is one that the server has, so that nobody can make up label values.
func (m *metrics) ended(method string, code codes.Code, took time.Duration, stream bool) {
	name := strings.TrimPrefix(strings.TrimPrefix(method, "/daybreak.v1."), "/")
	m.calls.WithLabelValues(name, code.String()).Inc()
	if !stream {
		m.seconds.WithLabelValues(name).Observe(took.Seconds())
	}
}
