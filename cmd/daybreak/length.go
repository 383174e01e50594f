package main

import (
	"errors"
	"time"

	"github.com/spf13/pflag"

	"daybreak/proto/rules"
)

// length is a flag's length of time, written as in files: pflag's own has no days.
type length struct{ into *time.Duration }

// lengthFlag adds a flag for a length of time.
func lengthFlag(flags *pflag.FlagSet, into *time.Duration, name string, usual time.Duration, usage string) {
	*into = usual
	flags.Var(length{into}, name, usage)
}

func (l length) String() string {
	if l.into == nil || *l.into == 0 {
		return "" // no default is shown
	}
	return rules.Duration(*l.into)
}

func (l length) Type() string { return "duration" }

func (l length) Set(text string) error {
	value, ok := rules.ParseDuration(text)
	switch {
	case !ok:
		return errors.New(rules.WantDuration)
	case value < 0:
		return errors.New("it is below 0")
	}
	*l.into = value
	return nil
}
