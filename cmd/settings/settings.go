// Package settings reads a daemon's settings: flags, then the environment, then a YAML file.
//
// Here: the one way in which both daemons read them, and their logger. Not here: what the settings mean. Only the programs
// in cmd call it.
package settings

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"golang.org/x/term"
)

// ConfigFlag is the flag that names the file.
const ConfigFlag = "config"

// Log is how a daemon speaks; embed it in the settings with mapstructure's "squash".
type Log struct {
	Format string `mapstructure:"log-format"`
	Level  string `mapstructure:"log-level"`
}

// AddFlags adds the flags that every daemon has.
func AddFlags(flags *pflag.FlagSet) {
	flags.String(ConfigFlag, "", "file with these flags as YAML keys")
	flags.String("log-format", "json", "json or console")
	flags.String("log-level", "info", "trace, debug, info, warn or error")
}

// Load fills into, a pointer to a struct with mapstructure tags that name the flags. A flag wins over the environment
// (PREFIX_DATA_DIR for data-dir), the environment over the file. A key that is no flag is refused.
func Load(flags *pflag.FlagSet, prefix string, into any) error {
	// Keys with dots and capitals are not to be cut up.
	v := viper.NewWithOptions(viper.KeyDelimiter("::"), viper.EnvKeyReplacer(strings.NewReplacer("-", "_")))
	v.SetEnvPrefix(prefix)
	v.AutomaticEnv()
	var bindErr error
	flags.VisitAll(func(flag *pflag.Flag) {
		if flag.Name != ConfigFlag && flag.Name != "help" {
			bindErr = errors.Join(bindErr, v.BindPFlag(flag.Name, flag))
		}
	})
	if bindErr != nil {
		return bindErr
	}
	path, err := flags.GetString(ConfigFlag)
	if err != nil {
		return err
	}
	if path != "" {
		v.SetConfigFile(path)
		v.SetConfigType("yaml")
		if err := v.ReadInConfig(); err != nil {
			return fmt.Errorf("read configuration %s: %w", path, err)
		}
	}
	if err := v.UnmarshalExact(into); err != nil {
		return fmt.Errorf("read configuration %s: %w", path, err)
	}
	return nil
}

// Check refuses what Logger cannot do.
func (l Log) Check() error {
	if l.Format != "json" && l.Format != "console" {
		return fmt.Errorf("--log-format %q: want json or console", l.Format)
	}
	if level, err := zerolog.ParseLevel(l.Level); err != nil || level == zerolog.NoLevel {
		return fmt.Errorf("--log-level %q: want trace, debug, info, warn or error", l.Level)
	}
	return nil
}

// Logger makes the daemon's logger on standard error.
func (l Log) Logger() zerolog.Logger {
	level, _ := zerolog.ParseLevel(l.Level) // Check has checked it
	log := zerolog.New(os.Stderr)
	if l.Format == "console" {
		log = zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: time.DateTime, NoColor: !term.IsTerminal(int(os.Stderr.Fd()))})
	}
	return log.Level(level).With().Timestamp().Logger()
}
