/// Declares a struct of prometheus handles that owns its registry.
///
/// ```text
/// /// Help text.
/// pub field: Kind[buckets; "label" = values, ...] => "name_without_prefix",
/// ```
///
/// `buckets` belong to histograms only. A label followed by `= values` (anything that iterates over `&'static str`)
/// starts with a zero for each value, so that a rate is known before the first event; several labels with values start
/// with every combination.
macro_rules! metrics {
    (
        $(#[doc = $struct_help:literal])+
        pub struct $name:ident {
            $( $(#[doc = $help:literal])+ pub $field:ident: $kind:ident $([$($spec:tt)*])? => $metric:literal, )+
        }
    ) => {
        $(#[doc = $struct_help])+
        #[derive(Clone, Debug)]
        pub struct $name {
            registry: prometheus::Registry,
            $( $(#[doc = $help])+ pub $field: $kind, )+
        }

        impl $name {
            /// Every declared metric at zero, in a registry of its own.
            fn declared() -> Result<Self, prometheus::Error> {
                let registry = prometheus::Registry::new();
                $(
                    let $field: $kind = metrics!(@make $kind, concat!("trailhound_", $metric),
                        concat!($($help),+).trim() $(, $($spec)*)?);
                    registry.register(Box::new($field.clone()))?;
                )+
                Ok(Self { registry, $($field),+ })
            }

            /// What is declared, in the order of the declaration.
            #[must_use]
            pub fn describe() -> Vec<MetricInfo> {
                vec![$(
                    MetricInfo {
                        name: concat!("trailhound_", $metric),
                        kind: metrics!(@kind $kind),
                        help: concat!($($help),+).trim(),
                        labels: metrics!(@labels $($($spec)*)?),
                    },
                )+]
            }
        }
    };

    (@kind IntCounter) => { "counter" };
    (@kind IntCounterVec) => { "counter" };
    (@kind IntGauge) => { "gauge" };
    (@kind IntGaugeVec) => { "gauge" };
    (@kind Gauge) => { "gauge" };
    (@kind Histogram) => { "histogram" };
    (@kind HistogramVec) => { "histogram" };

    (@labels) => { &[] };
    (@labels $buckets:ident) => { &[] };
    (@labels $buckets:ident; $($label:literal),+) => { &[$($label),+] };
    (@labels $($label:literal $(= $values:expr)?),+) => { &[$($label),+] };

    (@make Histogram, $metric:expr, $help:expr, $buckets:ident) => {
        Histogram::with_opts(prometheus::HistogramOpts::new($metric, $help).buckets($buckets.to_vec()))?
    };
    (@make HistogramVec, $metric:expr, $help:expr, $buckets:ident; $($label:literal),+) => {
        HistogramVec::new(prometheus::HistogramOpts::new($metric, $help).buckets($buckets.to_vec()), &[$($label),+])?
    };
    (@make $kind:ident, $metric:expr, $help:expr) => {
        $kind::with_opts(prometheus::Opts::new($metric, $help))?
    };
    (@make $kind:ident, $metric:expr, $help:expr, $($label:literal = $values:expr),+) => {{
        let metric = $kind::new(prometheus::Opts::new($metric, $help), &[$($label),+])?;
        for values in combinations(&[$($values.into_iter().collect::<Vec<&'static str>>()),+]) {
            metric.get_metric_with_label_values(&values)?;
        }
        metric
    }};
    (@make $kind:ident, $metric:expr, $help:expr, $($label:literal),+) => {
        $kind::new(prometheus::Opts::new($metric, $help), &[$($label),+])?
    };
}
