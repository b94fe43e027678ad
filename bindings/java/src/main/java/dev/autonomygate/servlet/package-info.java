/** A guard before servlets. It needs {@code jakarta.servlet}, which the container brings. */
package dev.autonomygate.servlet;
