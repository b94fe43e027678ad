//! One method of one path, and who answers it: the router and the published contract are made of the same ones.

use axum::{
    Router,
    handler::Handler,
    routing::{self, MethodRouter},
};

/// What is asked for by a method of a path.
pub(crate) struct Route<S> {
    pub(crate) path: &'static str,
    /// As OpenAPI writes it.
    #[cfg_attr(not(feature = "schema"), expect(dead_code, reason = "the contracts are of that feature"))]
    pub(crate) method: &'static str,
    handler: MethodRouter<S>,
}

impl<S: Clone + Send + Sync + 'static> Route<S> {
    pub(crate) fn get<T: 'static>(path: &'static str, handler: impl Handler<T, S>) -> Self {
        Self { path, method: "get", handler: routing::get(handler) }
    }

    pub(crate) fn put<T: 'static>(path: &'static str, handler: impl Handler<T, S>) -> Self {
        Self { path, method: "put", handler: routing::put(handler) }
    }

    pub(crate) fn post<T: 'static>(path: &'static str, handler: impl Handler<T, S>) -> Self {
        Self { path, method: "post", handler: routing::post(handler) }
    }

    /// The router of these.
    pub(crate) fn router(routes: impl IntoIterator<Item = Self>) -> Router<S> {
        routes.into_iter().fold(Router::new(), |router, Self { path, handler, .. }| router.route(path, handler))
    }
}
