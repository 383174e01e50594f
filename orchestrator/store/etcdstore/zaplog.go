package etcdstore

import (
	"github.com/rs/zerolog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapToZerolog is a zap core that hands etcd's lines to zerolog. etcd's info is our debug: it tells of its own inner
// life at every start.
type zapToZerolog struct {
	log    zerolog.Logger
	fields []zapcore.Field
}

func zapLogger(log zerolog.Logger) *zap.Logger {
	return zap.New(&zapToZerolog{log: log})
}

func zerologLevel(level zapcore.Level) zerolog.Level {
	switch level {
	case zapcore.DebugLevel:
		return zerolog.TraceLevel
	case zapcore.InfoLevel:
		return zerolog.DebugLevel
	case zapcore.WarnLevel:
		return zerolog.WarnLevel
	}
	return zerolog.ErrorLevel // zap itself ends the process after a fatal line
}

func (c *zapToZerolog) Enabled(level zapcore.Level) bool {
	return zerologLevel(level) >= max(c.log.GetLevel(), zerolog.GlobalLevel())
}

func (c *zapToZerolog) With(fields []zapcore.Field) zapcore.Core {
	return &zapToZerolog{log: c.log, fields: append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

// untrue is what etcd warns of when it has no listener at all.
const untrue = "Running http and grpc server on single port. This is not recommended for production."

func (c *zapToZerolog) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) && entry.Message != untrue {
		return checked.AddCore(entry, c)
	}
	return checked
}

func (c *zapToZerolog) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	values := zapcore.NewMapObjectEncoder()
	for _, field := range c.fields {
		field.AddTo(values)
	}
	for _, field := range fields {
		field.AddTo(values)
	}
	event := c.log.WithLevel(zerologLevel(entry.Level))
	if entry.LoggerName != "" {
		event = event.Str("logger", entry.LoggerName)
	}
	event.Fields(values.Fields).Msg(entry.Message)
	return nil
}

func (c *zapToZerolog) Sync() error { return nil }
