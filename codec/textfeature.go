package codec

// featureText is how the data of a feature reads, and its name.
type featureText struct {
	name                         string
	getRequest, getReply, setAny text // nil: no data
}

// features is the table of features, by number.
func features(f FeatureFlags) featureText {
	switch f.Number() {
	case FeatureMigration:
		return featureText{"MIGRATION", nil, migrationText, migrationText}
	case FeatureMigDeviceState:
		return featureText{"MIG_DEVICE_STATE", nil, migStateText, migStateText}
	case FeatureDMALoggingStart:
		return featureText{"DMA_LOGGING_START", nil, nil, loggingText}
	case FeatureDMALoggingStop:
		return featureText{"DMA_LOGGING_STOP", nil, nil, nil}
	case FeatureDMALoggingReport:
		return featureText{"DMA_LOGGING_REPORT", reportRequestText, reportReplyText, nil}
	}
	return featureText{}
}

func featureRequestText(l *line, b []byte) error {
	m, f, err := l.feature(b)
	if err != nil {
		return err
	}
	data := f.setAny
	if m.Flags&FeatureGet != 0 {
		data = f.getRequest
	}
	if err := l.featureData(&m, data); err != nil {
		return err
	}
	l.value("argsz", uint64(m.ArgSz))
	return nil
}

func featureReplyText(l *line, b []byte) error {
	m, f, err := l.feature(b)
	if err != nil {
		return err
	}
	data := f.setAny
	if m.Flags&FeatureGet != 0 {
		data = f.getReply
	}
	return l.featureData(&m, data)
}

// feature is what is to be done with which feature.
func (l *line) feature(b []byte) (m Feature, f featureText, err error) {
	if err := m.Decode(b); err != nil {
		return m, f, err
	}
	l.flags(uint64(m.Flags>>16), "GET", "SET", "PROBE")
	f = features(m.Flags)
	if f.name == "" {
		l.value("feature", uint64(m.Flags.Number()))
	} else {
		l.add(" ", f.name)
	}
	return m, f, nil
}

func (l *line) featureData(m *Feature, data text) error {
	if data == nil || m.Flags&FeatureProbe != 0 {
		l.rest(m.Data)
		return nil
	}
	return data(l, m.Data)
}

func migrationText(l *line, b []byte) error {
	var f MigrationFlags
	if err := f.Decode(b); err != nil {
		return err
	}
	l.flags(uint64(f), "STOP_COPY", "P2P", "PRE_COPY").rest(b[migrationFlagsSize:])
	return nil
}

func migStateText(l *line, b []byte) error {
	var s MigState
	if err := s.Decode(b); err != nil {
		return err
	}
	l.add(" ", s.String()).rest(b[migStateSize:])
	return nil
}

func loggingText(l *line, b []byte) error {
	var m DMALogging
	if err := m.Decode(b); err != nil {
		return err
	}
	l.value("page_size", m.PageSize)
	n := int(m.Count)
	if n == 0 {
		l.add(" all")
	}
	for i := range min(n, maxTextList) {
		r := m.Range(i)
		l.span(r.IOVA, r.Length)
	}
	l.more(n)
	return nil
}

func reportRequestText(l *line, b []byte) error {
	var m DMALoggingReport
	if err := m.DecodeRequest(b); err != nil {
		return err
	}
	l.report(&m).rest(b[DMALoggingReportSize:])
	return nil
}

func reportReplyText(l *line, b []byte) error {
	var m DMALoggingReport
	if err := m.DecodeReply(b); err != nil {
		return err
	}
	l.report(&m).data(m.Bitmap)
	return nil
}

func (l *line) report(m *DMALoggingReport) *line {
	return l.span(m.IOVA, m.Length).value("page_size", m.PageSize)
}
